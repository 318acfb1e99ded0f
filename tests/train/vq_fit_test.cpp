// VQ heads fitted to dense ones: where the fit must be exact, and which one comes closer.
#include "train/tools/convert/vq_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/saved_model.h"
#include "train/models/dense_expansion.h"

namespace vqlm {
namespace {

using testing::config_of;
using ::testing::HasSubstr;
using testing::largest_difference;
using testing::log_probs;
using testing::Saved;
using testing::set_bias;

constexpr double rounding = 2 * 40 * 16 * 6e-8;

TEST(VqFit, AFitWithEnoughClustersOrCodesIsExact) {
  const Saved saved(config_of(HeadKind::dense));
  const auto backend = make_cpu_backend(1);
  const std::vector<float> expected = log_probs(saved.source());
  TextStatistics text;
  for (int i = 0; i < 16; ++i) text.mean_hidden.push_back(0.1f * static_cast<float>(i - 8));
  for (int v = 0; v < 61; ++v) text.counts.push_back(v * v);
  for (const TextStatistics& known : {TextStatistics{}, text}) {
    // Every token its own cluster: c_v = w_v, beta_v = b_v.
    const VqFit alone = fit_vq_head(saved.source(), {.clusters = 61, .groups = 0}, known, *backend);
    EXPECT_LT(largest_difference(expected, log_probs(*alone.model)), rounding);
    EXPECT_NEAR(alone.kept_by_clusters, 1.0, 1e-6);
    // One cluster, and a code for every token: u_v = w_v - mean.
    const VqFit coded = fit_vq_head(saved.source(), {.clusters = 1, .groups = 2, .codes = 61}, known, *backend);
    EXPECT_LT(largest_difference(expected, log_probs(*coded.model)), rounding);
    EXPECT_NEAR(coded.kept_by_clusters, 0.0, 1e-6);
    EXPECT_NEAR(coded.kept_by_codes, 1.0, 1e-6);
  }
}

/// Mean of KL(expected || actual) over the rows.
double divergence(const std::vector<float>& expected, const std::vector<float>& actual) {
  double sum = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto p = static_cast<double>(expected[i]);
    sum += std::exp(p) * (p - static_cast<double>(actual[i]));
  }
  return sum / 16;
}

TEST(VqFit, AFitComesCloserWithCodesThanWithClustersAlone) {
  Config config = config_of(HeadKind::dense);
  config.model.tie_embeddings = true;
  set_bias(config, false);
  const Saved saved(config);
  const auto backend = make_cpu_backend(1);
  const VqFit clusters = fit_vq_head(saved.source(), {.clusters = 8, .groups = 0}, {}, *backend);
  const VqFit codes = fit_vq_head(saved.source(), {.clusters = 8, .groups = 8, .codes = 16}, {}, *backend);
  EXPECT_FALSE(codes.model->model().tie_embeddings);
  EXPECT_GT(codes.kept_by_codes, codes.kept_by_clusters);
  const std::vector<float> expected = log_probs(saved.source());
  const double of_codes = divergence(expected, log_probs(*codes.model));
  EXPECT_GT(of_codes, 0);
  EXPECT_LT(2 * of_codes, divergence(expected, log_probs(*clusters.model)));
  // And back again, the matrix an own one.
  EXPECT_EQ(read_whole(DenseExpansion(*codes.model), "lm_head.weight").size(), 61u * 16u);
}

// s_v = h . w_v + b_v inside a cluster, as the dense head has it: only what a cluster is as a whole is fitted.
TEST(VqFit, AFitByTheRowsOfATiedMatrixLosesNothingInsideAClusterAndLeastOfAll) {
  Config config = config_of(HeadKind::dense);
  config.model.tie_embeddings = true;
  const Saved saved(config);
  const auto backend = make_cpu_backend(1);
  const std::vector<float> expected = log_probs(saved.source());
  TextStatistics text;
  for (int i = 0; i < 16; ++i) text.mean_hidden.push_back(0.1f * static_cast<float>(i - 8));
  for (const TextStatistics& known : {TextStatistics{}, text}) {
    const auto fitted = [&](VqFitOptions options) {
      return log_probs(*fit_vq_head(saved.source(), options, known, *backend).model);
    };
    EXPECT_LT(largest_difference(expected, fitted({.members = MemberVectors::embedding, .clusters = 61})), rounding);
    EXPECT_LT(largest_difference(expected, fitted({.members = MemberVectors::embedding, .clusters = 1})), rounding);
    const double by_rows = divergence(expected, fitted({.members = MemberVectors::embedding, .clusters = 8}));
    EXPECT_GT(by_rows, 0);
    EXPECT_LT(1.5 * by_rows, divergence(expected, fitted({.clusters = 8, .groups = 8, .codes = 16})));
  }
  const Saved untied(config_of(HeadKind::dense));
  EXPECT_THROW(fit_vq_head(untied.source(), {.members = MemberVectors::embedding}, {}, *backend), UsageError);
  EXPECT_EQ(
      vq_sizes({.vocab_size = 50257, .d_model = 768, .tie_embeddings = true}, {.members = MemberVectors::embedding})
          .clusters,
      512);
}

/// What the model's head sees of random tokens.
HiddenStates hidden_states(const ModelSource& source, int batches) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const LoadedModel loaded = load_model(source, *backend, grid.tensor(), BatchShape{2, 8});
  const Philox rng(5, "vq_fit_test");
  HiddenStates hidden{.rows = 16 * batches, .dims = 16, .values = {}};
  std::vector<float> nll(16), states(16 * 16);
  for (int batch = 0; batch < batches; ++batch) {
    std::vector<std::int32_t> ids;
    for (std::uint64_t i = 0; i < 16; ++i)
      ids.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(batch) * 16 + i, 61)));
    const Tensor tokens(ids.data(), DType::i32, {16});
    loaded.transformer->evaluate(Tensor(nll.data(), DType::f32, {16}), tokens, tokens);
    backend->copy_to_host(states.data(), loaded.transformer->hidden());
    hidden.values.insert(hidden.values.end(), states.begin(), states.end());
  }
  return hidden;
}

// The two sequences of log_probs() are others than those fitted to.
TEST(VqFit, HiddenStatesOfATextBringClustersAndCodesCloser) {
  for (const bool tied : {true, false}) {
    Config config = config_of(HeadKind::dense);
    config.model.tie_embeddings = tied;
    const Saved saved(config, 1.0f);  // far from first order
    const auto backend = make_cpu_backend(1);
    const std::vector<float> expected = log_probs(saved.source());
    TextStatistics text{.counts = {}, .mean_hidden = {}, .hidden = hidden_states(saved.source(), 40)};
    for (const double mean : moments_of(text.hidden, text.hidden.rows).mean)
      text.mean_hidden.push_back(static_cast<float>(mean));
    const TextStatistics expanded{.counts = {}, .mean_hidden = text.mean_hidden, .hidden = {}};
    const VqFitOptions options = tied ? VqFitOptions{.members = MemberVectors::embedding, .clusters = 8}
                                      : VqFitOptions{.clusters = 8, .groups = 4, .codes = 16};
    const VqFit first = fit_vq_head(saved.source(), options, expanded, *backend);
    const VqFit fit = fit_vq_head(saved.source(), options, text, *backend);
    EXPECT_FALSE(first.clusters.has_value());
    ASSERT_TRUE(fit.clusters.has_value());
    EXPECT_EQ(fit.clusters->fitted + fit.clusters->held_back, 640);
    EXPECT_LT(fit.clusters->after, 0.7 * fit.clusters->before);
    EXPECT_LT(divergence(expected, log_probs(*fit.model)), 0.8 * divergence(expected, log_probs(*first.model)));
  }
}

TEST(VqFit, SizesOfAFit) {
  const auto sizes = [](std::int64_t vocab, std::int64_t d) {
    return vq_sizes({.vocab_size = vocab, .d_model = d}, {});
  };
  EXPECT_EQ(sizes(50257, 768).clusters, 256);
  EXPECT_EQ(sizes(50257, 768).codes, 256);
  EXPECT_EQ(sizes(50257, 768).groups, 64);
  EXPECT_EQ(sizes(128256, 4096).clusters, 1024);
  EXPECT_EQ(sizes(49152, 576).groups, 64);
  try {
    vq_sizes({.vocab_size = 1000, .d_model = 60}, {.groups = 16});
    FAIL() << "16 does not divide 60";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--groups 16: it must divide the model's width d = 60"));
  }
  EXPECT_THROW(vq_sizes({.vocab_size = 10, .d_model = 64}, {.clusters = 11}), UsageError);
}

}  // namespace
}  // namespace vqlm
