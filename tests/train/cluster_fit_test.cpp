// The clusters' part of a fitted VQ head: its targets, and that its minimum is the objective's.
#include "train/tools/convert/cluster_fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"

namespace vqlm {
namespace {

constexpr std::int64_t dims = 3, clusters = 4;

std::vector<float> normal(std::int64_t count, std::uint64_t seed) {
  const Philox rng(seed, "cluster_fit_test");
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return values;
}

/// Hidden states whose directions are of different lengths, correlated, and away from 0.
HiddenStates states(std::int64_t rows, std::uint64_t seed) {
  HiddenStates hidden{.rows = rows, .dims = dims, .values = normal(rows * dims, seed)};
  for (std::int64_t i = 0; i < rows; ++i) {
    float* h = hidden.values.data() + i * dims;
    h[0] = 4 * h[0] + 2;
    h[1] = h[1] + 0.5f * h[0];
    h[2] = 0.2f * h[2] - 1;
  }
  return hidden;
}

double logit(const HiddenStates& hidden, std::int64_t row, const std::vector<double>& y, std::int64_t k) {
  double sum = y[static_cast<std::size_t>(k * (dims + 1) + dims)];
  for (std::int64_t i = 0; i < dims; ++i) {
    sum += y[static_cast<std::size_t>(k * (dims + 1) + i)] *
           static_cast<double>(hidden.values[static_cast<std::size_t>(row * dims + i)]);
  }
  return sum;
}

std::vector<double> softmax(const HiddenStates& hidden, std::int64_t row, const std::vector<double>& y) {
  std::vector<double> p(clusters);
  double sum = 0;
  for (std::int64_t k = 0; k < clusters; ++k)
    sum += p[static_cast<std::size_t>(k)] = std::exp(logit(hidden, row, y, k));
  for (double& value : p) value /= sum;
  return p;
}

/// Mean D(p || softmax(y)) over all rows; `gradient`, where given, is overwritten.
double divergence(const HiddenStates& hidden, const std::vector<float>& targets, const std::vector<double>& y,
                  std::vector<double>* gradient = nullptr) {
  if (gradient != nullptr) gradient->assign(y.size(), 0);
  double sum = 0;
  for (std::int64_t row = 0; row < hidden.rows; ++row) {
    const std::vector<double> q = softmax(hidden, row, y);
    for (std::size_t k = 0; k < clusters; ++k) {
      const auto p = static_cast<double>(targets[static_cast<std::size_t>(row) * clusters + k]);
      if (p > 0) sum += p * std::log(p / q[k]);
      if (gradient == nullptr) continue;
      double* out = gradient->data() + k * (dims + 1);
      for (std::size_t i = 0; i < dims; ++i) {
        out[i] += (q[k] - p) * static_cast<double>(hidden.values[static_cast<std::size_t>(row) * dims + i]);
      }
      out[dims] += q[k] - p;
    }
  }
  const auto rows = static_cast<double>(hidden.rows);
  if (gradient != nullptr) {
    for (double& value : *gradient) value /= rows;
  }
  return sum / rows;
}

/// Gradient descent in double precision until nothing moves: 1 / L of the softmax' bound L = |x|^2 / 2.
double reference_minimum(const HiddenStates& hidden, const std::vector<float>& targets) {
  double squares = 0;
  for (const float value : hidden.values) squares += static_cast<double>(value) * static_cast<double>(value);
  const double rate = 2 / (squares / static_cast<double>(hidden.rows) + 1);
  std::vector<double> y(clusters * (dims + 1), 0), gradient;
  for (int step = 0; step < 40000; ++step) {
    divergence(hidden, targets, y, &gradient);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] -= rate * gradient[i];
  }
  return divergence(hidden, targets, y);
}

std::vector<double> numbers_of(const std::vector<float>& codebook, const std::vector<float>& bias) {
  std::vector<double> y;
  for (std::size_t k = 0; k < clusters; ++k) {
    for (std::size_t i = 0; i < dims; ++i) y.push_back(static_cast<double>(codebook[k * dims + i]));
    y.push_back(static_cast<double>(bias[k]));
  }
  return y;
}

/// Targets that no linear logits give: of 40 states, ten times, so that what is held back is what is fitted to.
struct Problem {
  HiddenStates hidden;
  std::vector<float> targets;

  Problem() {
    const HiddenStates once = states(40, 1);
    const std::vector<float> noise = normal(40 * clusters, 2);
    hidden = {.rows = 400, .dims = dims, .values = {}};
    for (int copy = 0; copy < 10; ++copy) {
      hidden.values.insert(hidden.values.end(), once.values.begin(), once.values.end());
      for (std::size_t row = 0; row < 40; ++row) {
        double p[clusters], sum = 0;
        for (std::size_t k = 0; k < clusters; ++k) {
          const double h = static_cast<double>(once.values[row * dims + k % dims]);
          sum += p[k] = std::exp(0.3 * h * (k == 3 ? -h : 1) + 0.5 * static_cast<double>(noise[row * clusters + k]));
        }
        for (const double value : p) targets.push_back(static_cast<float>(value / sum));
      }
    }
  }
};

TEST(ClusterFit, FindsTheMinimumOfTheCrossEntropy) {
  const Problem problem;
  const auto backend = make_cpu_backend(1);
  std::vector<float> codebook = normal(clusters * dims, 3), bias = normal(clusters, 4);
  const double start = divergence(problem.hidden, problem.targets, numbers_of(codebook, bias));
  const ClusterFit fit = fit_clusters(codebook, bias, problem.hidden, problem.targets, *backend);
  const double end = divergence(problem.hidden, problem.targets, numbers_of(codebook, bias));
  const double least = reference_minimum(problem.hidden, problem.targets);
  // Losses are of f32 logits below 64 in size, whose roundings are 64 * 2^-24 = 4e-6, most of which means away.
  EXPECT_NEAR(fit.before, start, 4e-6);
  EXPECT_NEAR(fit.after, end, 4e-6);
  EXPECT_NEAR(end, least, 4e-6);
  EXPECT_GT(start, least + 0.1);
  EXPECT_EQ(fit.fitted, 360);
  EXPECT_EQ(fit.held_back, 40);
}

TEST(ClusterFit, GivesTheSameBitsAgain) {
  const Problem problem;
  const auto backend = make_cpu_backend(1);
  std::vector<std::vector<float>> results;
  for (int run = 0; run < 2; ++run) {
    std::vector<float> codebook = normal(clusters * dims, 3), bias = normal(clusters, 4);
    fit_clusters(codebook, bias, problem.hidden, problem.targets, *backend);
    codebook.insert(codebook.end(), bias.begin(), bias.end());
    results.push_back(codebook);
  }
  EXPECT_EQ(results[0], results[1]);
}

// Linear logits that the targets come from are found; and left as they are by who starts there.
TEST(ClusterFit, FindsAndKeepsLogitsThatAreExact) {
  const auto backend = make_cpu_backend(1);
  const HiddenStates hidden = states(600, 5);
  std::vector<float> codebook = normal(clusters * dims, 6), bias = normal(clusters, 7);
  for (float& value : codebook) value *= 0.3f;
  std::vector<float> targets;
  for (std::int64_t row = 0; row < hidden.rows; ++row) {
    for (const double p : softmax(hidden, row, numbers_of(codebook, bias))) targets.push_back(static_cast<float>(p));
  }
  std::vector<float> found(codebook.size(), 0), found_bias(bias.size(), 0);
  const ClusterFit fit = fit_clusters(found, found_bias, hidden, targets, *backend);
  EXPECT_GT(fit.before, 0.1);
  EXPECT_NEAR(fit.after, 0, 1e-5);
  // Of softmax only differences count.
  for (std::size_t k = 1; k < clusters; ++k) {
    for (std::size_t i = 0; i < dims; ++i) {
      EXPECT_NEAR(found[k * dims + i] - found[i], codebook[k * dims + i] - codebook[i], 0.02f);
    }
  }
  std::vector<float> kept = codebook, kept_bias = bias;
  const ClusterFit again = fit_clusters(kept, kept_bias, hidden, targets, *backend);
  EXPECT_LE(again.after, again.before);
  for (std::size_t i = 0; i < kept.size(); ++i) EXPECT_NEAR(kept[i], codebook[i], 0.02f);
}

// What is held back says the opposite of the rest: every step is for the worse, and none is taken.
TEST(ClusterFit, IsNeverWorseOnWhatIsHeldBack) {
  const auto backend = make_cpu_backend(1);
  const HiddenStates hidden = states(100, 8);
  std::vector<float> targets;
  for (int row = 0; row < 100; ++row) {
    for (const float p :
         row < 90 ? std::vector<float>{0.97f, 0.01f, 0.01f, 0.01f} : std::vector<float>{0, 0.3f, 0.3f, 0.4f})
      targets.push_back(p);
  }
  std::vector<float> codebook(clusters * dims, 0), bias(clusters, 0);
  const ClusterFit fit = fit_clusters(codebook, bias, hidden, targets, *backend);
  EXPECT_EQ(fit.steps, 0);
  EXPECT_EQ(fit.after, fit.before);
  EXPECT_EQ(codebook, std::vector<float>(clusters * dims, 0));
  EXPECT_EQ(bias, std::vector<float>(clusters, 0));
}

TEST(ClusterFit, TargetsAreTheClustersSharesOfTheDenseSoftmax) {
  const auto backend = make_cpu_backend(2);
  constexpr std::int64_t vocab = 29;
  const HiddenStates hidden = states(50, 9);
  const WeightedVectors w{
      .rows = vocab, .dims = dims, .values = normal(vocab * dims, 10), .weight = std::vector<float>(vocab, 1)};
  const std::vector<float> bias = normal(vocab, 11);
  CodeMap map{.vocab_size = vocab,
              .clusters = clusters,
              .groups = 0,
              .codes = 0,
              .cluster_of_token = {},
              .member_codes = {},
              .provenance = {},
              .counted_tokens = 0};
  for (int v = 0; v < vocab; ++v) map.cluster_of_token.push_back(v * v % clusters == 0 ? v % 3 : 3);
  const std::vector<float> p = cluster_probabilities(w, bias, map, hidden, *backend);
  ASSERT_EQ(p.size(), static_cast<std::size_t>(hidden.rows * clusters));
  for (std::size_t row = 0; row < 50; ++row) {
    double sums[clusters] = {}, total = 0;
    for (std::size_t v = 0; v < vocab; ++v) {
      double z = static_cast<double>(bias[v]);
      for (std::size_t i = 0; i < dims; ++i)
        z += static_cast<double>(hidden.values[row * dims + i]) * static_cast<double>(w.values[v * dims + i]);
      sums[map.cluster_of_token[v]] += std::exp(z);
      total += std::exp(z);
    }
    // Logits below 64 in size, rounded to f32 a few times: 4 * 64 * 2^-24 of a probability.
    for (std::size_t k = 0; k < clusters; ++k)
      EXPECT_NEAR(p[row * clusters + k], sums[k] / total, 2e-5 * sums[k] / total + 1e-12);
  }
}

TEST(ClusterFit, NeedsMoreStatesThanAClusterHasNumbers) {
  for (const std::int64_t d : {1, 3, 16, 576, 4096}) {
    const std::int64_t fewest = fewest_states(d);
    EXPECT_GT(fewest - fewest / 10, d + 1);
    EXPECT_LE(fewest, d + d / 9 + 5);
  }
}

}  // namespace
}  // namespace vqlm
