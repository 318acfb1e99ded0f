// AdaptiveHead alone: its start, its bands, and batches of which one band gets more rows than it takes at a time.
#include "core/model/head/adaptive_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"
#include "dist/self_communicator.h"

namespace vqlm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t vocabulary = 61, width = 16;

std::vector<std::int64_t> some_counts() {
  std::vector<std::int64_t> counts(vocabulary);
  for (std::size_t v = 0; v < counts.size(); ++v)
    counts[v] = static_cast<std::int64_t>(Philox(2, "counts").below(v, 1000));
  return counts;
}

/// An adaptive head of three bands over n rows, with drawn parameters.
class Rows {
 public:
  explicit Rows(std::int64_t n)
      : n_(n), h_(static_cast<std::size_t>(n * width)), dh_(h_), nll_(static_cast<std::size_t>(n)) {
    const int bucket = store_.add_bucket("replicated", true);
    const HeadContext context{.tensor = tensor_,
                              .model = model_,
                              .parameters = store_,
                              .buckets = {bucket, bucket, bucket},
                              .rows = n,
                              .trainable = true};
    head_.emplace(context, config_, map_);
    store_.allocate(true);
    for (std::size_t id = 0; id < store_.parameters().size(); ++id) fill(id, 0.3f);
    const Philox rng(4, "hidden");
    for (std::size_t i = 0; i < h_.size(); ++i) h_[i] = rng.normal(i);
  }

  void fill(std::size_t id, float stddev) {
    const Tensor x = store_.value(static_cast<ParameterId>(id));
    const Philox rng(3, store_.parameters()[id].name);
    for (std::int64_t i = 0; i < x.numel(); ++i) x.f32()[i] = stddev * rng.normal(static_cast<std::uint64_t>(i));
  }
  std::vector<float> log_probs() {
    std::vector<float> out(static_cast<std::size_t>(n_ * vocabulary));
    head_->log_probs(Tensor(out.data(), DType::f32, {n_, vocabulary}), hidden());
    return out;
  }
  double total(std::vector<std::int32_t> targets) {
    head_->forward(nll(), hidden(), Tensor(targets.data(), DType::i32, {n_}));
    return std::accumulate(nll_.begin(), nll_.end(), 0.0);
  }
  void backward(std::vector<std::int32_t> targets, float scale) {
    store_.begin_gradients();
    std::vector<float> penalty(nll_.size(), 7);
    head_->forward_backward(nll(), Tensor(penalty.data(), DType::f32, {n_}),
                            Tensor(dh_.data(), DType::f32, {n_, width}), hidden(),
                            Tensor(targets.data(), DType::i32, {n_}), scale);
    for (const float value : penalty) EXPECT_EQ(value, 0);
  }
  Tensor hidden() { return {h_.data(), DType::f32, {n_, width}}; }
  Tensor nll() { return {nll_.data(), DType::f32, {n_}}; }

  AdaptiveHeadConfig config_{.cutoffs = {6, 20}, .tail_ratio = 3};
  CodeMap map_ = make_band_map(config_, some_counts());
  std::int64_t n_;
  std::vector<float> h_, dh_, nll_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  SelfCommunicator group_{*backend_, "self"};
  TensorParallel tensor_{*backend_, group_};
  ParameterStore store_{*backend_, DataShare{}};
  ModelConfig model_{.vocab_size = vocabulary, .d_model = width};
  std::optional<AdaptiveHead> head_;
};

/// The tokens of a band.
std::vector<std::int32_t> tokens_of(const CodeMap& map, std::int32_t band) {
  std::vector<std::int32_t> tokens;
  for (std::size_t v = 0; v < map.cluster_of_token.size(); ++v)
    if (map.cluster_of_token[v] == band) tokens.push_back(static_cast<std::int32_t>(v));
  return tokens;
}

TEST(AdaptiveHead, StartsAsTheUnigramModel) {
  Rows rows(2);
  for (std::size_t id = 0; id < rows.store_.parameters().size(); ++id) rows.fill(id, 0);
  rows.head_->initialize(some_counts());
  const std::vector<float> expected = log_unigram(some_counts()), actual = rows.log_probs();
  for (std::size_t v = 0; v < expected.size(); ++v) EXPECT_NEAR(actual[v], expected[v], 2e-6) << v;
}

// 300 rows, of which a tail band takes 75 at a time.
TEST(AdaptiveHead, LossesAreThoseOfTheFullDistribution) {
  Rows rows(300);
  const std::vector<float> row = rows.log_probs();
  for (const std::int32_t only : {-1, 0, 1, 2}) {
    SCOPED_TRACE(only);
    std::vector<std::int32_t> targets(300);
    const std::vector<std::int32_t> tokens = tokens_of(rows.map_, std::max(only, 0));
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const Philox rng(8, "targets");
      targets[i] = only < 0 ? static_cast<std::int32_t>(rng.below(i, vocabulary)) : tokens[rng.below(i, tokens.size())];
      if (i % 7 == 3) targets[i] = -1;
    }
    rows.total(targets);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const float expected = targets[i] < 0 ? 0 : -row[i * vocabulary + static_cast<std::size_t>(targets[i])];
      EXPECT_NEAR(rows.nll_[i], expected, 4e-6) << i;
    }
  }
}

TEST(AdaptiveHead, GradientsAreThoseOfFiniteDifferences) {
  Rows rows(300);
  std::vector<std::int32_t> targets(300);
  const std::vector<std::int32_t> tokens = tokens_of(rows.map_, 2);
  for (std::size_t i = 0; i < targets.size(); ++i)
    targets[i] = i % 7 == 3 ? -1 : i % 10 == 0 ? static_cast<std::int32_t>(i % vocabulary) : tokens[i % tokens.size()];
  constexpr float scale = 0.5f;
  rows.backward(targets, scale);
  // Of a sum of 300 losses below 8 in f32, rounded by 1e-4 at worst, over a difference of 2e-2.
  constexpr float step = 1e-2f;
  const auto difference = [&](float& x) {
    const float before = x;
    x = before + step;
    const double above = rows.total(targets);
    x = before - step;
    const double below = rows.total(targets);
    x = before;
    return static_cast<double>(scale) * (above - below) / (2 * static_cast<double>(step));
  };
  for (std::size_t i = 5; i < rows.h_.size(); i += 397) EXPECT_NEAR(rows.dh_[i], difference(rows.h_[i]), 5e-3) << i;
  for (std::size_t id = 0; id < rows.store_.parameters().size(); ++id) {
    const auto parameter = static_cast<ParameterId>(id);
    const Tensor value = rows.store_.value(parameter), gradient = rows.store_.gradient(parameter);
    for (std::int64_t i = 0; i < value.numel(); i += 1 + value.numel() / 5) {
      const double expected = difference(value.f32()[i]);
      EXPECT_NEAR(gradient.f32()[i], expected, 2e-2 + 2e-3 * std::abs(expected))
          << rows.store_.parameters()[id].name << i;
    }
  }
}

TEST(AdaptiveHead, BandsAreCutByFrequency) {
  const AdaptiveHeadConfig config{.cutoffs = {2, 3}};
  const CodeMap map = make_band_map(config, {5, 9, 0, 9, 5, 7});
  EXPECT_THAT(map.cluster_of_token, ElementsAre(2, 0, 2, 0, 2, 1));
  EXPECT_EQ(map.counted_tokens, 35);
  EXPECT_EQ(map.provenance, "bands by frequency: 2 + 1 + 3 tokens, 51.4 + 20.0 + 28.6 % of the counted text");
  EXPECT_NO_THROW(check_band_map(map, config, "here"));
  try {
    check_band_map(map, {.cutoffs = {2, 4}}, "here");
    FAIL() << "other bands";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("here: bands of 2 + 1 + 3 tokens do not fit head.cutoffs = [2, 4]"));
  }
}

TEST(AdaptiveHead, WidthsAndCutoffsAreThoseOfTheVocabulary) {
  EXPECT_THAT(default_cutoffs(50257), ElementsAre(6282, 25128));
  EXPECT_THAT(default_cutoffs(3), ElementsAre(1, 2));
  const std::vector<AdaptiveBand> bands = adaptive_bands({.cutoffs = {4, 8, 12, 16}, .tail_ratio = 4}, 20, 20);
  std::vector<std::int64_t> widths, sizes;
  double mass = 0;
  for (const AdaptiveBand& band : bands) {
    widths.push_back(band.width);
    sizes.push_back(band.tokens);
    mass += band.mass;
  }
  EXPECT_THAT(widths, ElementsAre(20, 5, 1, 1, 1));
  EXPECT_THAT(sizes, ElementsAre(4, 4, 4, 4, 4));
  EXPECT_NEAR(mass, 1, 1e-12);
  // The harmonic numbers of a large vocabulary, against their sum.
  double sum = 0, head = 0;
  for (int rank = 1; rank <= 50257; ++rank) {
    sum += 1.0 / rank;
    if (rank <= 6282) head += 1.0 / rank;
  }
  EXPECT_NEAR(adaptive_bands({}, 50257, 8).front().mass, head / sum, 1e-12);
}

}  // namespace
}  // namespace vqlm
