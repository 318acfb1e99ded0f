// The sharded softmax ops against double-precision references.
#include <gtest/gtest.h>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

struct Classes {
  std::int64_t rows, classes;
  bool bias;
  std::int64_t padding = 0;  // columns behind the classes, with NaN in them
};

std::string name(const ::testing::TestParamInfo<Classes>& info) {
  return std::to_string(info.param.rows) + "x" + std::to_string(info.param.classes) +
         (info.param.bias ? "_bias" : "_plain") +
         (info.param.padding > 0 ? "_padded" + std::to_string(info.param.padding) : "");
}

double log_sum_exp(const std::vector<double>& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

class CrossEntropyTest : public OpTest, public ::testing::WithParamInterface<Classes> {
 protected:
  std::int64_t rows = GetParam().rows, classes = GetParam().classes;
  HostF32 logits = random_normal({rows, classes}, "logits", 5);
  HostF32 bias_values = random_normal({classes}, "bias");
  HostI32 targets = random_integers<std::int32_t>({rows}, "targets", -1, classes - 1);

  Tensor bias() { return GetParam().bias ? bias_values.tensor() : Tensor{}; }
  /// x = logits + bias of one row.
  std::vector<double> row(std::int64_t n) const {
    std::vector<double> x;
    for (std::int64_t c = 0; c < classes; ++c) {
      x.push_back(static_cast<double>(logits[n * classes + c]) + (GetParam().bias ? double{bias_values[c]} : 0.0));
    }
    return x;
  }
  /// Of lse: |x| < 40 carries a rounding of 40 u32 from the bias and one from the shift, the sum adds 1024 / 4 (the
  /// narrowest vector) + classes / 1024 roundings of blocks and 2 of exp.
  double lse_bound() const { return u32 * (40 + 40 + 256 + static_cast<double>(classes) / 1024 + 8); }
};

TEST_P(CrossEntropyTest, OneShardEqualsReference) {
  HostF32 statistics = poisoned({1, rows, 3}), nll = poisoned({rows}), lse = poisoned({rows});
  backend->run(SoftmaxStatistics{.statistics = statistics.tensor().view({rows, 3}),
                                 .logits = logits,
                                 .bias = bias(),
                                 .targets = targets,
                                 .classes = {.count = classes}});
  backend->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
  std::vector<double> expected_lse, expected_nll;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::vector<double> x = row(n);
    expected_lse.push_back(log_sum_exp(x));
    expected_nll.push_back(targets[n] < 0 ? 0 : expected_lse.back() - x[static_cast<std::size_t>(targets[n])]);
  }
  expect_close(lse, expected_lse, lse_bound(), "lse");
  expect_close(nll, expected_nll, lse_bound() + 40 * u32, "nll");
}

TEST_P(CrossEntropyTest, ShardsCombineToTheWhole) {
  const std::int64_t shards = std::min<std::int64_t>(3, classes);
  HostF32 statistics = poisoned({shards, rows, 3}), nll = poisoned({rows}), lse = poisoned({rows});
  HostF32 gradient = poisoned({rows, classes});
  std::vector<HostF32> parts;
  for (std::int64_t p = 0; p < shards; ++p) {  // uneven: class counts differ by one where shards do not divide them
    const std::int64_t first = p * classes / shards, count = (p + 1) * classes / shards - first;
    const std::int64_t width = count + GetParam().padding;
    HostF32& part = parts.emplace_back(poisoned({rows, width}));
    for (std::int64_t n = 0; n < rows; ++n) {
      for (std::int64_t c = 0; c < count; ++c) part[n * width + c] = logits[n * classes + first + c];
    }
    const Tensor part_bias = GetParam().bias ? bias_values.tensor().range(first, count) : Tensor{};
    backend->run(SoftmaxStatistics{.statistics = statistics.tensor().rows(p, 1).view({rows, 3}),
                                   .logits = part,
                                   .bias = part_bias,
                                   .targets = targets,
                                   .classes = {first, count}});
  }
  backend->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
  for (std::int64_t p = 0; p < shards; ++p) {
    const std::int64_t first = p * classes / shards, count = (p + 1) * classes / shards - first;
    HostF32& part = parts[static_cast<std::size_t>(p)];
    const Tensor part_bias = GetParam().bias ? bias_values.tensor().range(first, count) : Tensor{};
    backend->run(SoftmaxGradient{
        .logits = part, .bias = part_bias, .lse = lse, .targets = targets, .classes = {first, count}, .scale = 0.5f});
    const std::int64_t width = count + GetParam().padding;
    for (std::int64_t n = 0; n < rows; ++n) {
      for (std::int64_t c = 0; c < count; ++c) gradient[n * classes + first + c] = part[n * width + c];
      for (std::int64_t c = count; c < width; ++c) EXPECT_EQ(part[n * width + c], 0) << n << " " << c;
    }
  }
  std::vector<double> expected_lse, expected_gradient;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::vector<double> x = row(n);
    expected_lse.push_back(log_sum_exp(x));
    for (std::int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(x[static_cast<std::size_t>(c)] - expected_lse.back());
      expected_gradient.push_back(targets[n] < 0 ? 0 : 0.5 * (p - (targets[n] == c ? 1 : 0)));
    }
  }
  expect_close(lse, expected_lse, lse_bound(), "lse");
  // p <= 1 inherits the absolute error of x - lse as a relative one.
  expect_close(gradient, expected_gradient, 0.5 * (lse_bound() + 80 * u32), "gradient");
}

TEST_P(CrossEntropyTest, InOneOpItIsTheSameBits) {
  const Tensor bias = GetParam().bias ? bias_values.tensor() : Tensor{};
  const ClassShard all{.count = classes};
  const auto clone = [](const HostF32& x) { return x.clone(); };
  HostF32 steps = clone(logits), once = clone(logits), dbias_steps({classes}, 2.0f), dbias({classes}, 2.0f);
  HostF32 statistics = poisoned({1, rows, 3}), nll = poisoned({rows}), lse = poisoned({rows}),
          penalty = poisoned({rows});
  const Tensor of_row = statistics.tensor().view({rows, 3});
  backend->run(
      SoftmaxStatistics{.statistics = of_row, .logits = steps, .bias = bias, .targets = targets, .classes = all});
  backend->run(SoftmaxCombine{
      .nll = nll, .lse = lse, .statistics = statistics, .targets = targets, .penalty = penalty, .z_loss = 0.01f});
  backend->run(SoftmaxGradient{
      .logits = steps, .bias = bias, .lse = lse, .targets = targets, .classes = all, .scale = 0.5f, .z_loss = 0.01f});
  backend->run(AddColumnSums{.out = dbias_steps, .x = steps});
  HostF32 nll_once = poisoned({rows}), lse_once = poisoned({rows}), penalty_once = poisoned({rows});
  HostF32 scratch = poisoned({rows, 3});
  backend->run(SoftmaxCrossEntropy{.nll = nll_once,
                                   .lse = lse_once,
                                   .penalty = penalty_once,
                                   .dbias = dbias,
                                   .logits = once,
                                   .statistics = scratch,
                                   .bias = bias,
                                   .targets = targets,
                                   .classes = all,
                                   .scale = 0.5f,
                                   .z_loss = 0.01f});
  expect_equal(nll_once, nll, "nll");
  expect_equal(lse_once, lse, "lse");
  expect_equal(penalty_once, penalty, "penalty");
  expect_equal(once, steps, "gradient");
  expect_equal(dbias, dbias_steps, "dbias");
}

TEST_P(CrossEntropyTest, ZLossIsTheSquareOfLseWithItsGradient) {
  constexpr float z_loss = 0.01f;
  HostF32 statistics = poisoned({1, rows, 3}), nll = poisoned({rows}), lse = poisoned({rows}),
          penalty = poisoned({rows});
  HostF32 gradient = logits.clone();
  const ClassShard all{.count = classes};
  backend->run(SoftmaxStatistics{.statistics = statistics.tensor().view({rows, 3}),
                                 .logits = logits,
                                 .bias = bias(),
                                 .targets = targets,
                                 .classes = all});
  backend->run(SoftmaxCombine{
      .nll = nll, .lse = lse, .statistics = statistics, .targets = targets, .penalty = penalty, .z_loss = z_loss});
  backend->run(SoftmaxGradient{.logits = gradient,
                               .bias = bias(),
                               .lse = lse,
                               .targets = targets,
                               .classes = all,
                               .scale = 0.5f,
                               .z_loss = z_loss});
  const auto z = static_cast<double>(z_loss);
  std::vector<double> expected_penalty, expected_gradient;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::vector<double> x = row(n);
    const double sum = log_sum_exp(x);
    expected_penalty.push_back(targets[n] < 0 ? 0 : z * sum * sum);
    for (std::int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(x[static_cast<std::size_t>(c)] - sum);
      expected_gradient.push_back(targets[n] < 0 ? 0 : 0.5 * (p * (1 + 2 * z * sum) - (targets[n] == c ? 1 : 0)));
    }
  }
  // |lse| < 40.
  expect_close(penalty, expected_penalty, z * (80 * lse_bound() + 3 * u32 * 1600), "penalty");
  expect_close(gradient, expected_gradient, 0.5 * (1.8 * (lse_bound() + 80 * u32) + 4 * u32), "gradient");
}

TEST_P(CrossEntropyTest, ACapTurnsLogitsAndTheirGradient) {
  constexpr float cap = 5, z_loss = 0.01f;
  const std::int64_t width = classes + GetParam().padding;
  HostF32 padded = poisoned({rows, width});
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t c = 0; c < classes; ++c) padded[n * width + c] = logits[n * classes + c];
  }
  HostF32 statistics = poisoned({1, rows, 3}), nll = poisoned({rows}), lse = poisoned({rows}),
          penalty = poisoned({rows});
  const ClassShard all{.count = classes};
  backend->run(SoftmaxStatistics{.statistics = statistics.tensor().view({rows, 3}),
                                 .logits = padded,
                                 .bias = bias(),
                                 .targets = targets,
                                 .classes = all,
                                 .softcap = cap});
  backend->run(SoftmaxCombine{
      .nll = nll, .lse = lse, .statistics = statistics, .targets = targets, .penalty = penalty, .z_loss = z_loss});
  backend->run(SoftmaxGradient{.logits = padded,
                               .bias = bias(),
                               .lse = lse,
                               .targets = targets,
                               .classes = all,
                               .scale = 0.5f,
                               .z_loss = z_loss,
                               .softcap = cap});
  const auto c64 = static_cast<double>(cap), z = static_cast<double>(z_loss);
  std::vector<double> expected_nll, expected_gradient, gradient, expected_log_probs;
  for (std::int64_t n = 0; n < rows; ++n) {
    std::vector<double> x = row(n), turned;
    for (double& value : x) {
      turned.push_back(std::tanh(value / c64));
      value = c64 * turned.back();
    }
    const double sum = log_sum_exp(x);
    expected_nll.push_back(targets[n] < 0 ? 0 : sum - x[static_cast<std::size_t>(targets[n])]);
    for (std::int64_t c = 0; c < classes; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const double dx = std::exp(x[i] - sum) * (1 + 2 * z * sum) - (targets[n] == c ? 1 : 0);
      expected_gradient.push_back(targets[n] < 0 ? 0 : 0.5 * dx * (1 - turned[i] * turned[i]));
      expected_log_probs.push_back(x[i] - sum);
      gradient.push_back(static_cast<double>(padded[n * width + c]));
    }
    for (std::int64_t c = classes; c < width; ++c) EXPECT_EQ(padded[n * width + c], 0) << n << " " << c;
  }
  // Highway's tanh is off by at most 4 ulp, 8 u32; with the products before and after it a logit by 10 cap u32.
  const double bound = lse_bound() + 10 * c64 * u32;
  expect_close(nll, expected_nll, bound + 10 * c64 * u32, "nll");
  HostF32 found({rows, classes});
  for (std::size_t i = 0; i < gradient.size(); ++i)
    found[static_cast<std::int64_t>(i)] = static_cast<float>(gradient[i]);
  // 1 - t^2 carries 2 |t| times the error of t. 1.8: 1 + 2 z_loss lse, lse < 40.
  expect_close(found, expected_gradient, 0.5 * 1.8 * (bound + 10 * c64 * u32 + 80 * u32 + 22 * u32), "gradient");
  backend->run(LogSoftmax{.logits = logits, .bias = bias(), .softcap = cap});
  expect_close(logits, expected_log_probs, bound + 10 * c64 * u32 + 80 * u32, "log_softmax");
}

TEST_P(CrossEntropyTest, LogSoftmaxEqualsReference) {
  std::vector<double> expected;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::vector<double> x = row(n);
    const double lse = log_sum_exp(x);
    for (double value : x) expected.push_back(value - lse);
  }
  backend->run(LogSoftmax{.logits = logits, .bias = bias()});
  expect_close(logits, expected, lse_bound() + 80 * u32, "log_softmax");
}

INSTANTIATE_TEST_SUITE_P(Sizes, CrossEntropyTest,
                         ::testing::Values(Classes{1, 1, true}, Classes{3, 2, false}, Classes{65, 7, true},
                                           Classes{17, 65, false}, Classes{9, 1009, true}, Classes{9, 1025, false},
                                           Classes{4, 50021, true}, Classes{9, 509, true, 22},
                                           Classes{3, 40, false, 1}),
                         name);

TEST_F(OpTest, SoftmaxKeepsLargeLogits) {
  HostF32 logits({1, 3}), statistics({1, 1, 3}), nll({1}), lse({1});
  logits[0] = 1e4f, logits[1] = -1e4f, logits[2] = 1e4f - 1;
  HostI32 targets({1}, 2);
  backend->run(SoftmaxStatistics{
      .statistics = statistics.tensor().view({1, 3}), .logits = logits, .targets = targets, .classes = {.count = 3}});
  backend->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
  EXPECT_NEAR(nll[0], 1 + std::log(1 + std::exp(-1.0)), 4 * u32);
}

TEST_F(OpTest, ACappedGradientIsThatOfFiniteDifferences) {
  constexpr std::int64_t classes = 11;
  constexpr double cap = 3;
  HostF32 logits = random_normal({1, classes}, "logits", 4), bias = random_normal({classes}, "bias"), lse({1}),
          nll({1}), statistics({1, 1, 3});
  HostI32 targets({1}, 4);
  const std::vector<double> biases = bias.doubles();
  const auto loss = [&](const std::vector<double>& x) {
    std::vector<double> turned;
    for (std::size_t c = 0; c < x.size(); ++c) turned.push_back(cap * std::tanh((x[c] + biases[c]) / cap));
    return log_sum_exp(turned) - turned[4];
  };
  const std::vector<double> numeric = numeric_gradient(loss, logits.doubles());
  const ClassShard all{.count = classes};
  backend->run(SoftmaxStatistics{.statistics = statistics.tensor().view({1, 3}),
                                 .logits = logits,
                                 .bias = bias,
                                 .targets = targets,
                                 .classes = all,
                                 .softcap = cap});
  backend->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
  EXPECT_NEAR(nll[0], loss(logits.doubles()), 100 * u32);
  backend->run(SoftmaxGradient{
      .logits = logits, .bias = bias, .lse = lse, .targets = targets, .classes = all, .scale = 1.0f, .softcap = cap});
  // |x| < 3: as above with cap 3 and 11 terms, rounded up; the differences' own error is below 1e-9.
  expect_close(logits, numeric, 120 * u32 + 1e-8, "gradient");
}

TEST_F(OpTest, ACapKeepsNotANumber) {
  HostF32 logits({2, 40}, 1.0f), statistics({1, 2, 3}), nll({2}), lse({2});
  logits[39] = std::numeric_limits<float>::quiet_NaN();  // row 0, not the target
  HostI32 targets({2}, 0);
  backend->run(SoftmaxStatistics{.statistics = statistics.tensor().view({2, 3}),
                                 .logits = logits,
                                 .targets = targets,
                                 .classes = {.count = 40},
                                 .softcap = 2});
  backend->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
  EXPECT_TRUE(std::isnan(nll[0]));
  EXPECT_NEAR(nll[1], std::log(40.0), 16 * u32);
}

TEST_F(OpTest, SoftmaxShowsNotANumber) {
  HostF32 logits({2, 40}, 1.0f), statistics({1, 2, 3}), nll({2}), lse({2});
  logits[39] = std::numeric_limits<float>::quiet_NaN();  // row 0, not the target
  HostI32 targets({2}, 0);
  backend->run(SoftmaxStatistics{
      .statistics = statistics.tensor().view({2, 3}), .logits = logits, .targets = targets, .classes = {.count = 40}});
  backend->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
  EXPECT_TRUE(std::isnan(nll[0]));
  EXPECT_NEAR(nll[1], std::log(40.0), 8 * u32);
}

}  // namespace
}  // namespace vqlm::testing
