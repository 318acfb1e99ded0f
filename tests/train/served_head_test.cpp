// Serving from a VQ head is exact: what the search by bound and the sampling by cluster leave out is never a token that
// belongs to the result. Random and trained heads of some hundred tokens, against the log-probabilities of all tokens.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "core/model/head/vq_head.h"
#include "core/rng.h"
#include "dist/self_communicator.h"
#include "tests/train/expect_top.h"
#include "tests/train/head_config.h"

namespace vqlm::testing {
namespace {

constexpr std::int64_t vocabulary = 997, width = 32, rows = 64;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

enum class Clusters { equal, mixed, single };  // mixed: the first 20 tokens alone, the others in 11 clusters

struct Served {
  const char* name;
  Clusters clusters;
  int groups;
  float spread;            // standard deviation of the untrained matrices
  bool embedding = false;  // members are rows of an embedding, clusters scored by their means, too; then no groups
};

void PrintTo(const Served& served, std::ostream* out) {
  *out << served.name;
}

CodeMap map_of(const Served& served) {
  const std::int64_t count = served.clusters == Clusters::single ? vocabulary : 31;
  CodeMap map = make_random_map(vocabulary, count, served.groups, served.groups > 0 ? 16 : 0, 5);
  if (served.clusters != Clusters::mixed) return map;
  for (std::int32_t v = 0; v < vocabulary; ++v) {
    map.cluster_of_token[static_cast<std::size_t>(v)] = v < 20 ? v : 20 + v % 11;
  }
  return map;
}

/// A head alone that can be trained: token y is predicted from a hidden state that holds y's own random vector and noise.
class ServedHead {
 public:
  explicit ServedHead(const Served& served)
      : group_(*backend_, "self"), tensor_(*backend_, group_), store_(*backend_, DataShare{}) {
    const CodeMap map = map_of(served);
    model_.vocab_size = vocabulary;
    model_.d_model = width;
    config_ = {.clusters = map.clusters, .members = code_members(map.groups, map.codes), .input_codes = false};
    if (served.embedding) config_.members = EmbeddingMembersConfig{};
    const int bucket = store_.add_bucket("head", true);
    const ParameterId table = store_.add(bucket, {{.name = "model.embed_tokens.weight",
                                                   .global_shape = {vocabulary, width},
                                                   .offset = {0, 0},
                                                   .shape = {vocabulary, width},
                                                   .init = {},
                                                   .role = ParameterRole::embedding}});
    head_ = std::make_unique<VqHead>(HeadContext{.tensor = tensor_,
                                                 .model = model_,
                                                 .parameters = store_,
                                                 .buckets = {bucket, bucket, bucket},
                                                 .rows = rows,
                                                 .trainable = true,
                                                 .embedding = table},
                                     config_, map);
    store_.allocate(true);
    const Philox rng(7, served.name);
    const Tensor values = store_.flat_values();
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      values.f32()[i] = served.spread * rng.normal(static_cast<std::uint64_t>(i));
    }
  }

  VqHead& head() { return *head_; }

  /// The elements of a parameter.
  Tensor parameter(const std::string& name) {
    for (std::size_t id = 0; id < store_.parameters().size(); ++id) {
      if (store_.parameters()[id].name == name) return store_.value(static_cast<ParameterId>(id));
    }
    throw Error(name);
  }

  /// h (1, d) of a token's context; valid until the next call.
  Tensor context_of(std::int32_t token, std::uint64_t noise) {
    fill_context(one_.data(), token, noise);
    return Tensor(one_.data(), DType::f32, {1, width});
  }

  std::vector<float> log_probs(Tensor h) {
    std::vector<float> row(static_cast<std::size_t>(vocabulary));
    head_->log_probs(Tensor(row.data(), DType::f32, {1, vocabulary}), h);
    return row;
  }

  /// Steps of gradient descent; returns the last batch's mean negative log-likelihood.
  double train(int steps) {
    std::vector<float> h(static_cast<std::size_t>(rows * width)), dh(h.size()), nll(rows), penalty(rows);
    std::vector<std::int32_t> targets(static_cast<std::size_t>(rows));
    const Tensor values = store_.flat_values(), gradients = store_.flat_gradients();
    double mean = 0;
    for (int step = 0; step < steps; ++step) {
      for (std::size_t n = 0; n < targets.size(); ++n) {
        targets[n] = draw_token(static_cast<std::uint64_t>(step) * rows + n);
        fill_context(h.data() + n * width, targets[n], static_cast<std::uint64_t>(step) * rows + n);
      }
      backend_->fill(gradients, 0.0f);
      head_->forward_backward(Tensor(nll.data(), DType::f32, {rows}), Tensor(penalty.data(), DType::f32, {rows}),
                              Tensor(dh.data(), DType::f32, {rows, width}), Tensor(h.data(), DType::f32, {rows, width}),
                              Tensor(targets.data(), DType::i32, {rows}), 1.0f / rows);
      for (std::int64_t i = 0; i < values.numel(); ++i) values.f32()[i] -= 0.5f * gradients.f32()[i];
      mean = std::accumulate(nll.begin(), nll.end(), 0.0) / rows;
    }
    return mean;
  }

  /// As in head_choice_test.cpp: two orders of sums of d products and a bias, twice for the two factors, and two roundings of
  /// log-probabilities below 2^8. sum(|a||b|) <= |h|_1 max|w| + max|b| over all parameters; a code plus a mean is at most
  /// twice as large.
  double tolerance() {
    double norm = 0, largest = 0;
    for (const float x : one_) norm += std::abs(static_cast<double>(x));
    const Tensor values = store_.flat_values();
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      const double x = std::abs(static_cast<double>(values.f32()[i]));
      if (std::isfinite(x)) largest = std::max(largest, x);
    }
    return 0x1p-24 * (8 * (width + 1) * (norm + 1) * largest + 2 * 256);
  }

  /// Small ids often: V^u for uniform u, as in natural text.
  static std::int32_t draw_token(std::uint64_t index) {
    static const Philox rng(3, "tokens");
    const double u = static_cast<double>(rng.uniform(index));
    return static_cast<std::int32_t>(std::pow(static_cast<double>(vocabulary), u)) - 1;
  }

 private:
  static void fill_context(float* h, std::int32_t token, std::uint64_t noise) {
    const Philox own(static_cast<std::uint64_t>(token), "own vector"), other(noise, "noise");
    for (std::size_t i = 0; i < width; ++i) h[i] = own.normal(i) + 0.7f * other.normal(i);
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  SelfCommunicator group_;
  TensorParallel tensor_;
  ParameterStore store_;
  ModelConfig model_;
  VqHeadConfig config_;
  std::unique_ptr<VqHead> head_;
  std::vector<float> one_ = std::vector<float>(width);
};

/// Counts and masses, alone and together, for `contexts` hidden states.
void expect_serving_is_exact(ServedHead& served, std::uint64_t contexts) {
  for (std::uint64_t i = 0; i < contexts; ++i) {
    SCOPED_TRACE(i);
    const Tensor h = served.context_of(ServedHead::draw_token(1'000'000 + i), 1'000'000 + i);
    const std::vector<float> row = served.log_probs(h);
    const double tolerance = served.tolerance();
    for (const std::int64_t count : {1, 2, 7, 40, 300}) {
      expect_top(served.head().most_probable(h, count, no_mass), row, count, no_mass, tolerance);
    }
    for (const double mass : {0.1, 0.5, 0.9, 0.99}) {
      expect_top(served.head().most_probable(h, vocabulary, mass), row, vocabulary, mass, tolerance);
      expect_top(served.head().most_probable(h, 5, mass), row, 5, mass, tolerance);
    }
  }
}

class ServedHeadTest : public ::testing::TestWithParam<Served> {};

TEST_P(ServedHeadTest, NeverMissesAToken) {
  ServedHead served(GetParam());
  expect_serving_is_exact(served, 60);
}

TEST_P(ServedHeadTest, NeverMissesATokenOnceTrained) {
  ServedHead served(GetParam());
  const double before = served.train(1), after = served.train(300);
  EXPECT_LT(after, before - 0.5);  // it has learned: distributions are uneven, and clusters are passed over
  expect_serving_is_exact(served, 60);
}

// A bias of -infinity takes a token out: it has no probability, whatever the others of its cluster have.
TEST_P(ServedHeadTest, NeverServesATokenBiasedToMinusInfinity) {
  ServedHead served(GetParam());
  const bool alone = GetParam().clusters == Clusters::single;
  const Tensor bias = served.parameter(alone ? "vq_head.cluster_bias" : "vq_head.token_bias");
  const auto out = [](std::int32_t token) { return token % 3 == 0 && token >= 20; };
  for (std::int32_t v = 0; v < vocabulary; ++v) {
    // A cluster's only member has probability one inside it, so there it is the cluster that goes: K = V, in shuffled order.
    if (out(v)) bias.f32()[v] = minus_infinity;
  }
  for (std::uint64_t i = 0; i < 30; ++i) {
    const Tensor h = served.context_of(ServedHead::draw_token(i), i);
    const std::vector<float> row = served.log_probs(h);
    std::int64_t possible = 0;
    for (const float x : row) possible += x > minus_infinity ? 1 : 0;
    EXPECT_LT(possible, vocabulary - 300);
    const auto top = served.head().most_probable(h, possible, no_mass);
    ASSERT_EQ(static_cast<std::int64_t>(top.size()), possible);
    for (const TokenLogProb& t : top) {
      ASSERT_GT(row[static_cast<std::size_t>(t.token)], minus_infinity) << "token " << t.token;
      ASSERT_NEAR(t.log_prob, row[static_cast<std::size_t>(t.token)], served.tolerance());
    }
    for (const double u : {0.0, 0.3, 0.999999}) {
      const std::int32_t sampled = served.head().sample(h, 1.5f, [&] { return u; });
      ASSERT_GT(row[static_cast<std::size_t>(sampled)], minus_infinity);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, ServedHeadTest,
                         ::testing::Values(Served{"vectors", Clusters::equal, 8, 0.3f},
                                           Served{"peaked", Clusters::equal, 8, 1.0f},
                                           Served{"flat", Clusters::equal, 8, 0.02f},
                                           Served{"mixed_sizes", Clusters::mixed, 8, 0.3f},
                                           Served{"published_method", Clusters::mixed, 0, 0.3f},
                                           Served{"embedding_members", Clusters::mixed, 0, 0.3f, true},
                                           Served{"one_token_clusters", Clusters::single, 8, 0.3f}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(ServedHead, ATrainedHeadPassesClustersOver) {
  ServedHead served({"vectors", Clusters::equal, 8, 0.3f});
  served.train(300);
  std::int64_t visited = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    served.head().most_probable(served.context_of(ServedHead::draw_token(i), i), 1, no_mass);
    visited += served.head().clusters_visited();
  }
  EXPECT_GT(visited, 0);
  EXPECT_LT(visited, 60 * 31 / 2);
}

}  // namespace
}  // namespace vqlm::testing
