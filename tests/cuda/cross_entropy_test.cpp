// The sharded softmax ops on the device, against the CPU's on the same bf16 logits.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

struct Classes {
  std::int64_t rows, classes;
  bool bias;
  std::int64_t offset = 0;   // elements by which logits and bias are off the alignment of allocations
  std::int64_t padding = 0;  // columns behind the classes, with NaN in them
};

std::string name(const ::testing::TestParamInfo<Classes>& info) {
  return std::to_string(info.param.rows) + "x" + std::to_string(info.param.classes) +
         (info.param.bias ? "_bias" : "_plain") +
         (info.param.offset > 0 ? "_off" + std::to_string(info.param.offset) : "") +
         (info.param.padding > 0 ? "_padded" + std::to_string(info.param.padding) : "");
}

class CudaCrossEntropyTest : public CudaOpTest, public ::testing::WithParamInterface<Classes> {
 protected:
  Classes c = GetParam();
  HostF32 logits = random_bf16({c.rows, c.classes}, "logits", 5);
  HostF32 bias = random_normal({c.classes}, "bias");
  HostI32 targets = random_integers<std::int32_t>({c.rows}, "targets", -1, std::max<std::int64_t>(c.classes - 1, 0));

  Tensor if_biased(Tensor x) const { return c.bias ? x : Tensor{}; }
  /// Columns [first, first + count) of bias, or of logits, there with NaN in the padding behind them.
  HostF32 columns(const HostF32& x, std::int64_t first, std::int64_t count) const {
    const bool matrix = x.shape().rank() == 2;
    const std::int64_t rows = matrix ? x.shape()[0] : 1, classes = x.shape()[matrix ? 1 : 0];
    const std::int64_t width = matrix ? count + c.padding : count;
    HostF32 part = poisoned(matrix ? Shape{rows, width} : Shape{count});
    for (std::int64_t n = 0; n < rows; ++n) {
      for (std::int64_t i = 0; i < count; ++i) part[n * width + i] = x[n * classes + first + i];
    }
    return part;
  }
  /// Of lse on either side: |x| < 40 carries a rounding from the bias and one from the shift; exp is off by 2 + 1.2 |x|
  /// units where its value is exp(x), below 4 in all; each of at most 256 threads adds classes / 256 numbers, and a tree
  /// adds 8 more times; the host's sum takes 256 + classes / 1024 additions.
  double lse_bound() const { return 2 * u32 * (40 + 40 + 8 + 256 + static_cast<double>(c.classes) / 32 + 16); }
};

TEST_P(CudaCrossEntropyTest, ShardsEqualHost) {
  const std::int64_t shards = 3;
  HostF32 host_statistics({shards, c.rows, 3}), host_nll({c.rows}), host_lse({c.rows});
  const DeviceArray statistics = output({shards, c.rows, 3}, DType::f32), nll = output({c.rows}, DType::f32),
                    lse = output({c.rows}, DType::f32), y = upload(targets);
  const auto first = [&](std::int64_t p) { return p * c.classes / shards; };
  for (std::int64_t p = 0; p < shards; ++p) {
    const std::int64_t count = first(p + 1) - first(p);  // 0 for some, where classes are fewer than shards
    HostF32 part = columns(logits, first(p), count), part_bias = columns(bias, first(p), count);
    device->run(SoftmaxStatistics{.statistics = statistics.tensor().rows(p, 1).view({c.rows, 3}),
                                  .logits = bf16(part, c.offset),
                                  .bias = if_biased(upload(part_bias, c.offset)),
                                  .targets = y,
                                  .classes = {first(p), count}});
    const Tensor host_part = host_statistics.tensor().rows(p, 1).view({c.rows, 3});
    if (count > 0) {
      oracle->run(SoftmaxStatistics{.statistics = host_part,
                                    .logits = part,
                                    .bias = if_biased(part_bias),
                                    .targets = targets,
                                    .classes = {first(p), count}});
    } else {
      for (std::int64_t n = 0; n < c.rows; ++n) host_part.f32()[3 * n] = -1e30f;
    }
  }
  device->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = y});
  oracle->run(SoftmaxCombine{.nll = host_nll, .lse = host_lse, .statistics = host_statistics, .targets = targets});
  expect_close(lse.download(), host_lse.doubles(), lse_bound(), "lse");
  expect_close(nll.download(), host_nll.doubles(), lse_bound() + 80 * u32, "nll");

  const DeviceArray penalty = output({c.rows}, DType::f32), nll_again = output({c.rows}, DType::f32);
  HostF32 host_penalty({c.rows});
  device->run(SoftmaxCombine{
      .nll = nll_again, .lse = lse, .statistics = statistics, .targets = y, .penalty = penalty, .z_loss = 0.01f});
  oracle->run(SoftmaxCombine{.nll = host_nll,
                             .lse = host_lse,
                             .statistics = host_statistics,
                             .targets = targets,
                             .penalty = host_penalty,
                             .z_loss = 0.01f});
  expect_equal(nll_again.download(), nll.download(), "nll beside a penalty");
  expect_close(penalty.download(), host_penalty.doubles(), 0.01 * (80 * lse_bound() + 6 * u32 * 1600), "penalty");

  const float scale = 0.5f, z_loss = 0.01f;
  for (std::int64_t p = 0; p < shards; ++p) {
    const std::int64_t count = first(p + 1) - first(p);
    if (count == 0) continue;
    HostF32 part = columns(logits, first(p), count), part_bias = columns(bias, first(p), count);
    const DeviceArray gradient = bf16(part, c.offset);
    device->run(SoftmaxGradient{.logits = gradient,
                                .bias = if_biased(upload(part_bias, c.offset)),
                                .lse = upload(host_lse),
                                .targets = y,
                                .classes = {first(p), count},
                                .scale = scale,
                                .z_loss = z_loss});
    oracle->run(SoftmaxGradient{.logits = part,
                                .bias = if_biased(part_bias),
                                .lse = host_lse,
                                .targets = targets,
                                .classes = {first(p), count},
                                .scale = scale,
                                .z_loss = z_loss});
    // p <= 1 inherits the absolute error of x - lse (|x - lse| < 80) as a relative one, exp adds 2 + 1.2 |x - lse| units.
    std::vector<double> bound = rounded_once(part.doubles());
    for (double& b : bound) b += 1.8 * scale * u32 * (2 * 80 + 4 + 2.4 * 80 + 8);  // 1.8: 1 + 2 z_loss lse, |lse| < 40
    expect_close(gradient.download(), part.doubles(), bound, "gradient");
  }
}

TEST_P(CudaCrossEntropyTest, CappedEqualsHost) {
  constexpr float cap = 6, scale = 0.5f, z_loss = 0.01f;
  const ClassShard all{.count = c.classes};
  HostF32 part = columns(logits, 0, c.classes);
  const Tensor host_bias = if_biased(bias);
  const DeviceArray device_bias = upload(bias, c.offset), device_logits = bf16(part, c.offset), y = upload(targets);
  HostF32 host_statistics({1, c.rows, 3}), host_nll({c.rows}), host_lse({c.rows});
  const DeviceArray statistics = output({1, c.rows, 3}, DType::f32), nll = output({c.rows}, DType::f32),
                    lse = output({c.rows}, DType::f32);
  device->run(SoftmaxStatistics{.statistics = statistics.tensor().view({c.rows, 3}),
                                .logits = device_logits,
                                .bias = if_biased(device_bias),
                                .targets = y,
                                .classes = all,
                                .softcap = cap});
  oracle->run(SoftmaxStatistics{.statistics = host_statistics.tensor().view({c.rows, 3}),
                                .logits = part,
                                .bias = host_bias,
                                .targets = targets,
                                .classes = all,
                                .softcap = cap});
  device->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = y});
  oracle->run(SoftmaxCombine{.nll = host_nll, .lse = host_lse, .statistics = host_statistics, .targets = targets});
  // On either side tanh and the products around it are off by at most 10 u32, and so a logit by 10 cap u32.
  const double turned = 2 * 10 * static_cast<double>(cap) * u32;
  expect_close(lse.download(), host_lse.doubles(), lse_bound() + turned, "lse");
  expect_close(nll.download(), host_nll.doubles(), lse_bound() + 80 * u32 + 2 * turned, "nll");

  device->run(SoftmaxGradient{.logits = device_logits,
                              .bias = if_biased(device_bias),
                              .lse = upload(host_lse),
                              .targets = y,
                              .classes = all,
                              .scale = scale,
                              .z_loss = z_loss,
                              .softcap = cap});
  oracle->run(SoftmaxGradient{.logits = part,
                              .bias = host_bias,
                              .lse = host_lse,
                              .targets = targets,
                              .classes = all,
                              .scale = scale,
                              .z_loss = z_loss,
                              .softcap = cap});
  std::vector<double> bound = rounded_once(part.doubles());
  // As without a cap, with the logit's error, and 2 |t| times that of t in 1 - t^2 on either side.
  for (double& b : bound) b += 1.8 * scale * (u32 * (2 * 80 + 4 + 2.4 * 80 + 8 + 44) + turned);
  expect_close(device_logits.download(), part.doubles(), bound, "gradient");

  const DeviceArray out = upload(logits, c.offset);
  device->run(LogSoftmax{.logits = out, .bias = if_biased(device_bias), .softcap = cap});
  HostF32 expected = logits.clone();
  oracle->run(LogSoftmax{.logits = expected, .bias = host_bias, .softcap = cap});
  expect_close(out.download(), expected.doubles(), lse_bound() + 160 * u32 + 2 * turned, "log_softmax");
}

TEST_P(CudaCrossEntropyTest, LogSoftmaxEqualsHost) {
  const DeviceArray out = upload(logits, c.offset);
  device->run(LogSoftmax{.logits = out, .bias = if_biased(upload(bias, c.offset))});
  if (c.classes == 0) return;
  HostF32 expected = logits.clone();
  oracle->run(LogSoftmax{.logits = expected, .bias = if_biased(bias)});
  expect_close(out.download(), expected.doubles(), lse_bound() + 160 * u32, "log_softmax");
}

/// Rows in registers and in shared memory, biases there and elsewhere, and what takes the separate passes.
class CudaOnePassTest : public CudaCrossEntropyTest {};

TEST_P(CudaOnePassTest, EqualsHost) {
  constexpr float scale = 0.5f, z_loss = 0.01f;
  const ClassShard all{.count = c.classes};
  HostF32 part = columns(logits, 0, c.classes), dbias({c.classes}, 1.0f), before = dbias.clone();
  const std::int64_t width = part.shape()[1];
  const DeviceArray device_logits = bf16(part, c.offset), device_dbias = upload(dbias),
                    device_bias = upload(bias, c.offset), y = upload(targets);
  DeviceArray statistics = output({c.rows, 3}, DType::f32), nll = output({c.rows}, DType::f32),
              lse = output({c.rows}, DType::f32), penalty = output({c.rows}, DType::f32);
  HostF32 host_statistics({c.rows, 3}), host_nll({c.rows}), host_lse({c.rows}), host_penalty({c.rows});
  const auto op = [&](Tensor of_nll, Tensor of_lse, Tensor of_penalty, Tensor of_dbias, Tensor x, Tensor scratch,
                      Tensor of_bias, Tensor of_targets) {
    return SoftmaxCrossEntropy{.nll = of_nll,
                               .lse = of_lse,
                               .penalty = of_penalty,
                               .dbias = if_biased(of_dbias),
                               .logits = x,
                               .statistics = scratch,
                               .bias = if_biased(of_bias),
                               .targets = of_targets,
                               .classes = all,
                               .scale = scale,
                               .z_loss = z_loss};
  };
  device->run(op(nll, lse, penalty, device_dbias, device_logits, statistics, device_bias, y));
  oracle->run(op(host_nll, host_lse, host_penalty, dbias, part, host_statistics, bias, targets));
  expect_close(lse.download(), host_lse.doubles(), lse_bound(), "lse");
  expect_close(nll.download(), host_nll.doubles(), lse_bound() + 80 * u32, "nll");
  expect_close(penalty.download(), host_penalty.doubles(), 0.01 * (80 * lse_bound() + 6 * u32 * 1600), "penalty");
  // As in ShardsEqualHost, with the error of this lse.
  std::vector<double> bound = rounded_once(part.doubles()), of_sums(static_cast<std::size_t>(c.classes));
  for (std::size_t i = 0; i < bound.size(); ++i) {
    bound[i] += 1.8 * scale * (u32 * (2 * 80 + 4 + 2.4 * 80 + 8) + lse_bound());
    const std::size_t column = i % static_cast<std::size_t>(width);
    if (column < of_sums.size()) of_sums[column] += bound[i] + 2 * u32 * static_cast<double>(c.rows);
  }
  expect_close(device_logits.download(), part.doubles(), bound, "gradient");
  if (!c.bias) return;
  expect_close(device_dbias.download(), dbias.doubles(), of_sums, "dbias");
  double largest = 0;  // a target's, far above the bounds
  for (std::int64_t i = 0; i < c.classes; ++i) largest = std::max(largest, std::abs(double{dbias[i]} - before[i]));
  const bool has_targets = std::ranges::any_of(targets.values(), [](std::int32_t target) { return target >= 0; });
  EXPECT_EQ(largest > 0.1, has_targets);
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaOnePassTest,
                         ::testing::Values(Classes{9, 509, true}, Classes{5, 4099, true, 3},
                                           Classes{19, 4099, true, 0, 61}, Classes{11, 4104, false},
                                           Classes{5, 4099, true, 0, 5}, Classes{9, 16'391, true, 0, 57},
                                           Classes{7, 23'993, true, 0, 7},  // sums beside the bias on sm_90 only
                                           Classes{2, 28'700, false, 0, 4}, Classes{2, 32'801, true, 0, 31},
                                           Classes{3, 57'377, true, 0, 31}, Classes{2, 57'400, false},
                                           Classes{1, 115'801, true, 0, 7}),
                         name);

INSTANTIATE_TEST_SUITE_P(Sizes, CudaCrossEntropyTest,
                         ::testing::Values(Classes{1, 1, true}, Classes{3, 2, false}, Classes{19, 7, true},
                                           Classes{11, 65, false}, Classes{9, 509, true}, Classes{9, 509, true, 3},
                                           Classes{10, 1024, true, 1}, Classes{5, 1009, false},
                                           Classes{5, 4099, true},     // a block a row, with a bias of any alignment
                                           Classes{3, 4104, true, 2},  // a bias aligned otherwise than the logits
                                           Classes{3, 9001, false, 5},
                                           // Rows padded as a head pads them, and otherwise.
                                           Classes{9, 509, true, 0, 22}, Classes{5, 4099, true, 0, 64},
                                           Classes{4, 5003, false, 3, 5}, Classes{6, 66, true, 1, 42}),
                         name);

TEST_F(CudaOpTest, SoftmaxOfNoRows) {
  const DeviceArray none = output({0, 5}), statistics = output({0, 3}, DType::f32), lse = output({0}, DType::f32),
                    targets = output({0}, DType::i32);
  device->run(SoftmaxStatistics{.statistics = statistics, .logits = none, .targets = targets, .classes = {.count = 5}});
  device->run(
      SoftmaxCombine{.nll = lse, .lse = lse, .statistics = statistics.tensor().view({1, 0, 3}), .targets = targets});
  device->run(SoftmaxGradient{.logits = none, .lse = lse, .targets = targets, .classes = {.count = 5}, .scale = 1.0f});
  device->synchronize();
}

TEST_F(CudaOpTest, SoftmaxKeepsLargeLogits) {
  HostF32 logits({1, 3});
  logits[0] = 8192, logits[1] = -8192, logits[2] = 8160;  // bf16 holds them
  HostI32 targets({1}, 2);
  const DeviceArray statistics = output({1, 1, 3}, DType::f32), nll = output({1}, DType::f32),
                    lse = output({1}, DType::f32), y = upload(targets);
  device->run(SoftmaxStatistics{
      .statistics = statistics.tensor().view({1, 3}), .logits = bf16(logits), .targets = y, .classes = {.count = 3}});
  device->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = y});
  EXPECT_EQ(nll.download()[0], 32);
}

TEST_F(CudaOpTest, SoftmaxShowsNotANumber) {
  HostF32 logits({2, 40}, 1.0f);
  logits[39] = std::numeric_limits<float>::quiet_NaN();  // row 0, not the target
  HostI32 targets({2}, 0);
  const DeviceArray statistics = output({1, 2, 3}, DType::f32), nll = output({2}, DType::f32),
                    lse = output({2}, DType::f32), y = upload(targets);
  device->run(SoftmaxStatistics{
      .statistics = statistics.tensor().view({2, 3}), .logits = bf16(logits), .targets = y, .classes = {.count = 40}});
  device->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = y});
  const HostF32 found = nll.download();
  EXPECT_TRUE(std::isnan(found[0]));
  EXPECT_NEAR(found[1], std::log(40.0), 16 * u32);
}

}  // namespace
}  // namespace vqlm::testing
