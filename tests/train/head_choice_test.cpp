// OutputHead::most_probable() and sample() against the log-probabilities of all tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/cpu/cpu_backend.h"
#include "core/model/head/adaptive_head.h"
#include "core/model/head/low_rank_head.h"
#include "core/model/head/vq_head.h"
#include "core/rng.h"
#include "dist/self_communicator.h"
#include "tests/core/chi_square.h"
#include "tests/train/expect_top.h"
#include "tests/train/head_config.h"

namespace vqlm::testing {
namespace {

constexpr std::int64_t width = 16;

struct Kind {
  const char* name;
  HeadKind kind;
  std::int64_t vocabulary;
  std::int64_t clusters;
  int groups;
  float spread;  // standard deviation of the codes and the members' vectors
  bool bias = true;
  bool embedding = false;  // members are rows of the embedding
  bool member_mean = false;
};

void PrintTo(const Kind& kind, std::ostream* out) {
  *out << kind.name;
}

/// A head alone, with random parameters.
class LoneHead {
 public:
  explicit LoneHead(const Kind& kind)
      : kind_(kind), group_(*backend_, "self"), tensor_(*backend_, group_), store_(*backend_, DataShare{}) {
    model_.vocab_size = kind.vocabulary;
    model_.d_model = width;
    VqHeadConfig vq{
        .bias = kind.bias, .clusters = kind.clusters, .members = code_members(kind.groups, 5), .input_codes = false};
    if (kind.embedding) vq.members = EmbeddingMembersConfig{.mean = kind.member_mean};
    const int bucket = store_.add_bucket("head", false);
    const ParameterId table = store_.add(bucket, {{.name = "model.embed_tokens.weight",
                                                   .global_shape = {kind.vocabulary, width},
                                                   .offset = {0, 0},
                                                   .shape = {kind.vocabulary, width},
                                                   .init = {},
                                                   .role = ParameterRole::embedding}});
    const HeadContext context{.tensor = tensor_,
                              .model = model_,
                              .parameters = store_,
                              .buckets = {bucket, bucket, bucket},
                              .rows = 1,
                              .trainable = false,
                              .embedding = table};
    if (kind.kind == HeadKind::vq) {
      head_ = std::make_unique<VqHead>(
          context, vq, make_random_map(kind.vocabulary, kind.clusters, kind.groups, kind.groups > 0 ? 5 : 0, 3));
    } else if (kind.kind == HeadKind::adaptive) {
      const AdaptiveHeadConfig adaptive{.bias = kind.bias, .cutoffs = {5, 6, 30}, .tail_ratio = 3};
      std::vector<std::int64_t> counts(static_cast<std::size_t>(kind.vocabulary));
      for (std::size_t v = 0; v < counts.size(); ++v)
        counts[v] = static_cast<std::int64_t>(Philox(3, "counts").below(v, 50));
      head_ = std::make_unique<AdaptiveHead>(context, adaptive, make_band_map(adaptive, counts));
    } else if (kind.kind == HeadKind::low_rank) {
      head_ = std::make_unique<LowRankHead>(context, LowRankHeadConfig{.bias = kind.bias, .rank = 5}, std::nullopt);
    } else {
      head_ = std::make_unique<DenseHead>(context, DenseHeadConfig{.bias = kind.bias}, std::nullopt);
    }
    store_.allocate(false);
    for (std::size_t id = 0; id < store_.parameters().size(); ++id) {
      const Tensor x = store_.value(static_cast<ParameterId>(id));
      const Philox rng(7, store_.parameters()[id].name);
      const float scale = store_.parameters()[id].shape.rank() > 1 ? kind.spread : 1.0f;
      for (std::int64_t i = 0; i < x.numel(); ++i) {
        x.f32()[i] = scale * rng.normal(static_cast<std::uint64_t>(i));
      }
    }
  }

  OutputHead& head() { return *head_; }
  /// The elements of a parameter, to be changed.
  Tensor parameter(const std::string& name) {
    for (std::size_t id = 0; id < store_.parameters().size(); ++id) {
      if (store_.parameters()[id].name == name) return store_.value(static_cast<ParameterId>(id));
    }
    throw Error(name);
  }

  Tensor hidden(std::uint64_t seed) {
    const Philox rng(seed, "hidden");
    for (std::size_t i = 0; i < h_.size(); ++i) h_[i] = rng.normal(i);
    return Tensor(h_.data(), DType::f32, {1, width});
  }
  std::vector<float> log_probs(Tensor h) {
    std::vector<float> row(static_cast<std::size_t>(kind_.vocabulary));
    head_->log_probs(Tensor(row.data(), DType::f32, {1, kind_.vocabulary}), h);
    return row;
  }

  /// How far two ways to compute one log-probability may be apart. A score is a sum of d products and a bias, in any
  /// order: (d + 1) u sum(|a||b|), and the log-sum-exp inherits it; a VQ head has two of each. sum(|a||b|) <= |h|_1 max|w| +
  /// max|b|, with normal numbers below 6; then two roundings of log-probabilities below 2^8.
  double tolerance() const {
    double norm = 0;
    for (float x : h_) norm += std::abs(static_cast<double>(x));
    const double score = norm * 6 * static_cast<double>(kind_.spread) + 6;
    return 0x1p-24 * (4 * (width + 1) * score + 2 * 256);
  }

 private:
  Kind kind_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  SelfCommunicator group_;
  TensorParallel tensor_;
  ParameterStore store_;
  ModelConfig model_;
  std::unique_ptr<OutputHead> head_;
  std::vector<float> h_ = std::vector<float>(width);
};

class HeadChoice : public ::testing::TestWithParam<Kind> {};

TEST_P(HeadChoice, MostProbableIsTheBeginningOfASort) {
  LoneHead lone(GetParam());
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Tensor h = lone.hidden(seed);
    const std::vector<float> row = lone.log_probs(h);
    const auto all = static_cast<std::int64_t>(row.size());
    for (const std::int64_t count : {std::int64_t{1}, std::int64_t{5}, all}) {
      for (const double mass : {0.0, 0.7, 0.95, no_mass}) {
        expect_top(lone.head().most_probable(h, count, mass), row, count, mass, lone.tolerance());
      }
    }
  }
}

TEST_P(HeadChoice, TheArgMaxIsNeverMissed) {
  LoneHead lone(GetParam());
  for (std::uint64_t seed = 100; seed < 2100; ++seed) {
    const Tensor h = lone.hidden(seed);
    const std::vector<float> row = lone.log_probs(h);
    const TokenLogProb best = lone.head().most_probable(h, 1, no_mass).front();
    ASSERT_NEAR(best.log_prob, *std::max_element(row.begin(), row.end()), lone.tolerance()) << "row " << seed;
    ASSERT_NEAR(best.log_prob, row[static_cast<std::size_t>(best.token)], lone.tolerance()) << "row " << seed;
  }
}

TEST_P(HeadChoice, SamplesFollowTheProbabilities) {
  LoneHead lone(GetParam());
  const Tensor h = lone.hidden(5);
  const std::vector<float> row = lone.log_probs(h);
  const std::vector<double> log_probs(row.begin(), row.end());
  for (const float temperature : {0.5f, 1.0f, 1.7f}) {
    SCOPED_TRACE(temperature);
    std::vector<std::int64_t> counts(row.size(), 0);
    const Philox rng(17, "draws");
    std::uint64_t index = 0;
    const auto uniform = [&] { return static_cast<double>(rng.uniform(index++)); };
    for (int i = 0; i < 10'000; ++i) {
      ++counts[static_cast<std::size_t>(lone.head().sample(h, temperature, uniform))];
    }
    EXPECT_LT(chi_square_excess(counts, tempered(log_probs, static_cast<double>(temperature))), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, HeadChoice,
                         ::testing::Values(Kind{"dense", HeadKind::dense, 97, 1, 0, 0.5f},
                                           Kind{"dense_without_bias", HeadKind::dense, 97, 1, 0, 0.5f, false},
                                           Kind{"low_rank", HeadKind::low_rank, 97, 1, 0, 0.5f},
                                           Kind{"adaptive", HeadKind::adaptive, 97, 1, 0, 0.5f},
                                           Kind{"adaptive_without_bias", HeadKind::adaptive, 97, 1, 0, 0.5f, false},
                                           Kind{"vq", HeadKind::vq, 97, 9, 4, 0.5f},
                                           Kind{"vq_peaked", HeadKind::vq, 97, 9, 4, 4.0f},
                                           Kind{"vq_without_bias", HeadKind::vq, 97, 9, 4, 0.5f, false},
                                           Kind{"vq_without_groups", HeadKind::vq, 97, 9, 0, 0.5f},
                                           Kind{"vq_all_of_a_cluster_equal", HeadKind::vq, 97, 9, 0, 0.5f, false},
                                           Kind{"vq_one_cluster", HeadKind::vq, 97, 1, 4, 0.5f},
                                           Kind{"vq_clusters_of_one", HeadKind::vq, 97, 97, 4, 0.5f},
                                           Kind{"vq_embedding", HeadKind::vq, 97, 9, 0, 0.5f, true, true},
                                           Kind{"vq_embedding_mean", HeadKind::vq, 97, 9, 0, 0.5f, true, true, true},
                                           Kind{"vq_many_clusters", HeadKind::vq, 97, 70, 4, 0.5f}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(HeadChoice, TokensThatWereBiasedAway) {
  LoneHead lone({"vq", HeadKind::vq, 97, 9, 4, 0.5f});
  const Tensor bias = lone.parameter("vq_head.token_bias"), clusters = lone.parameter("vq_head.cluster_bias");
  for (std::int64_t v = 0; v < 97; v += 2) bias.f32()[v] = -1e30f;
  clusters.f32()[4] = -1e30f;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Tensor h = lone.hidden(seed);
    const std::vector<float> row = lone.log_probs(h);
    expect_top(lone.head().most_probable(h, 20, no_mass), row, 20, no_mass, lone.tolerance());
    EXPECT_EQ(lone.head().sample(h, 2.0f, [] { return 0.4; }) % 2, 1);
  }
}

TEST(HeadChoice, EqualTokensComeByTheirIds) {
  LoneHead lone({"vq", HeadKind::vq, 97, 97, 0, 0.0f, false});
  for (std::int64_t k = 0; k < 97; ++k) lone.parameter("vq_head.cluster_bias").f32()[k] = 0;
  const std::vector<TokenLogProb> top = lone.head().most_probable(lone.hidden(1), 97, no_mass);
  ASSERT_EQ(top.size(), 97U);
  for (std::size_t i = 0; i < top.size(); ++i) EXPECT_EQ(top[i].token, static_cast<std::int32_t>(i));
}

}  // namespace
}  // namespace vqlm::testing
