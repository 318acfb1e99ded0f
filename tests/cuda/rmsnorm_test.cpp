#include "core/error.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

constexpr float eps = 1e-5f;

/// Roundings on one term's way through a row's sum: on the GPU 32 in a thread and 10 in the reductions, on the CPU width / 16
/// and 20 (its smallest vectors keep 16 partial sums).
double row_sum_roundings(std::int64_t width) {
  return static_cast<double>(width) / 16 + 62;
}
/// Relative error between two rstd: half of the sums', and product, mean, eps, root and division on both sides.
double rstd_error(std::int64_t width) {
  return (row_sum_roundings(width) / 2 + 8) * u32;
}

std::vector<double> scaled_abs(std::vector<double> x, double factor) {
  for (double& value : x) value = std::abs(value) * factor;
  return x;
}

class CudaRmsnormTest : public CudaOpTest {
 protected:
  /// {rows, width}: one thread to several warps with equal and unequal shares, three packs a thread and four, packs and single
  /// elements, several rows a warp and a block.
  const std::vector<std::pair<std::int64_t, std::int64_t>> sizes{
      {1, 1},    {7, 7},    {3, 65},   {65, 130}, {70, 768},  {6, 1024},  {5, 1001},
      {3, 1032}, {4, 2048}, {2, 8200}, {2, 1999}, {2500, 40}, {2, 12'296}};
};

TEST_F(CudaRmsnormTest, ForwardEqualsTheOracle) {
  for (const auto& [rows, width] : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 x = random_bf16({rows, width}, "x"), gain = random_normal({width}, "gain");
      HostF32 expected({rows, width}), expected_rstd({rows});
      oracle->run(RmsnormForward{.y = expected, .rstd = expected_rstd, .x = x, .gain = gain, .eps = eps});
      DeviceArray y = output({rows, width}), rstd = output({rows}, DType::f32);
      device->run(RmsnormForward{.y = y, .rstd = rstd, .x = bf16(x, offset), .gain = upload(gain), .eps = eps});
      expect_close(rstd.download(), expected_rstd.doubles(), scaled_abs(expected_rstd.doubles(), rstd_error(width)),
                   "rstd");
      expect_close(y.download(), expected.doubles(), scaled_abs(expected.doubles(), u16 + rstd_error(width) + 4 * u32),
                   "y");
    }
  }
}

TEST_F(CudaRmsnormTest, ForwardNormalisesTheRoundedSumAlsoInPlace) {
  for (const auto& [rows, width] : sizes) {
    HostF32 x = random_bf16({rows, width}, "x"), branch = random_bf16({rows, width}, "branch");
    HostF32 gain = random_normal({width}, "gain"), exact_sum({rows, width});
    for (std::int64_t i = 0; i < x.size(); ++i) exact_sum[i] = round_to_bf16(x[i] + branch[i]);
    HostF32 expected({rows, width}), expected_rstd({rows});
    oracle->run(RmsnormForward{.y = expected, .rstd = expected_rstd, .x = exact_sum, .gain = gain, .eps = eps});

    DeviceArray y = output({rows, width}), sum = output({rows, width}), rstd = output({rows}, DType::f32);
    DeviceArray x_device = bf16(x), branch_device = bf16(branch);
    const DeviceArray gain_device = upload(gain);
    device->run(RmsnormForward{
        .y = y, .rstd = rstd, .sum = sum, .x = x_device, .branch = branch_device, .gain = gain_device, .eps = eps});
    expect_equal(sum.download(), exact_sum, "sum");
    expect_close(rstd.download(), expected_rstd.doubles(), scaled_abs(expected_rstd.doubles(), rstd_error(width)),
                 "rstd");
    expect_close(y.download(), expected.doubles(), scaled_abs(expected.doubles(), u16 + rstd_error(width) + 4 * u32),
                 "y");

    DeviceArray over_x = bf16(x), over_branch = bf16(branch), y_again = output({rows, width});
    device->run(RmsnormForward{.y = y_again,
                               .rstd = rstd,
                               .sum = over_x,
                               .x = over_x,
                               .branch = branch_device,
                               .gain = gain_device,
                               .eps = eps});
    expect_equal(over_x.download(), exact_sum, "sum in place of x");
    expect_equal(y_again.download(), y.download(), "y");
    device->run(RmsnormForward{.y = y_again,
                               .rstd = rstd,
                               .sum = over_branch,
                               .x = x_device,
                               .branch = over_branch,
                               .gain = gain_device,
                               .eps = eps});
    expect_equal(over_branch.download(), exact_sum, "sum in place of branch");
    expect_equal(y_again.download(), y.download(), "y");
  }
}

TEST_F(CudaRmsnormTest, ZeroRowsGiveZerosAndNoRowsGiveNothing) {
  DeviceArray y = output({2, 65}), rstd = output({2}, DType::f32);
  const DeviceArray gain = upload(HostF32({65}, 1.0f));
  device->run(RmsnormForward{.y = y, .rstd = rstd, .x = bf16(HostF32({2, 65})), .gain = gain, .eps = eps});
  expect_equal(y.download(), HostF32({2, 65}), "y");
  const double root = 1 / std::sqrt(static_cast<double>(eps));
  expect_close(rstd.download(), {root, root}, 4 * u32 * root, "rstd");  // sum with eps, root, quotient
  const DeviceArray none = output({0, 65}), no_rstd = output({0}, DType::f32), dgain = upload(HostF32({65}, 3.0f));
  device->run(RmsnormForward{.y = none, .rstd = no_rstd, .x = none, .gain = gain, .eps = eps});
  device->run(RmsnormBackward{.dx = none,
                              .dgain = dgain,
                              .dy = none,
                              .x = none,
                              .gain = gain,
                              .rstd = no_rstd,
                              .accumulate_dx = Accumulate::no});
  expect_equal(dgain.download(), HostF32({65}, 3.0f), "dgain");
}

struct Bounds {
  std::vector<double> dx, dgain;  // without the rounding of dx
};

/// What float arithmetic may make of the terms of dx and dgain, on both sides; rstd is the same on both.
Bounds gradient_bounds(const HostF32& dy, const HostF32& x, const HostF32& gain, const HostF32& rstd) {
  const std::int64_t rows = rstd.size(), width = gain.size();
  Bounds bounds{{}, std::vector<double>(static_cast<std::size_t>(width))};
  for (std::int64_t n = 0; n < rows; ++n) {
    const double r = rstd[n];
    double mean_abs = 0;  // of g xhat
    for (std::int64_t i = n * width; i < (n + 1) * width; ++i) {
      mean_abs += std::abs(r * dy[i] * gain[i % width] * x[i]) / static_cast<double>(width);
    }
    for (std::int64_t i = n * width; i < (n + 1) * width; ++i) {
      bounds.dx.push_back(8 * u32 * std::abs(r * dy[i] * gain[i % width]) +
                          (row_sum_roundings(width) + 16) * u32 * r * r * std::abs(x[i]) * mean_abs);
      // At most every row is one addition on the GPU, one sixteenth and 18 on the CPU; 3 products on each side.
      bounds.dgain[static_cast<std::size_t>(i % width)] +=
          (1.1 * static_cast<double>(rows) + 24) * u32 * std::abs(static_cast<double>(dy[i]) * x[i] * r);
    }
  }
  return bounds;
}

TEST_F(CudaRmsnormTest, BackwardEqualsTheOracleAlsoInPlaceAndAccumulating) {
  for (const auto& [rows, width] : sizes) {
    HostF32 x = random_bf16({rows, width}, "x"), dy = random_bf16({rows, width}, "dy");
    HostF32 gain = random_normal({width}, "gain"), y({rows, width}), rstd({rows});
    oracle->run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = eps});
    HostF32 dx({rows, width}), dgain({width});
    oracle->run(RmsnormBackward{
        .dx = dx, .dgain = dgain, .dy = dy, .x = x, .gain = gain, .rstd = rstd, .accumulate_dx = Accumulate::no});
    const Bounds bounds = gradient_bounds(dy, x, gain, rstd);

    const DeviceArray x_device = bf16(x), dy_device = bf16(dy), gain_device = upload(gain);
    const DeviceArray rstd_device = upload(rstd);
    DeviceArray dx_device = output({rows, width}), dgain_device = upload(HostF32({width}));
    device->run(RmsnormBackward{.dx = dx_device,
                                .dgain = dgain_device,
                                .dy = dy_device,
                                .x = x_device,
                                .gain = gain_device,
                                .rstd = rstd_device,
                                .accumulate_dx = Accumulate::no});
    expect_close(dx_device.download(), dx.doubles(), added(bounds.dx, rounded_once(dx.doubles())), "dx");
    expect_close(dgain_device.download(), dgain.doubles(), bounds.dgain, "dgain");

    DeviceArray in_place = bf16(dy), dgain_again = upload(HostF32({width}));
    device->run(RmsnormBackward{.dx = in_place,
                                .dgain = dgain_again,
                                .dy = in_place,
                                .x = x_device,
                                .gain = gain_device,
                                .rstd = rstd_device,
                                .accumulate_dx = Accumulate::no});
    expect_equal(in_place.download(), dx_device.download(), "dx in place of dy");
    expect_equal(dgain_again.download(), dgain_device.download(), "dgain in a second run");

    DeviceArray over_x = bf16(x), dgain_over_x = upload(HostF32({width}));
    device->run(RmsnormBackward{.dx = over_x,
                                .dgain = dgain_over_x,
                                .dy = bf16(dy),
                                .x = over_x,
                                .gain = gain_device,
                                .rstd = rstd_device,
                                .accumulate_dx = Accumulate::no});
    expect_equal(over_x.download(), dx_device.download(), "dx in place of x");

    for (const std::int64_t offset : {0, 1}) {  // with 1 one element at a time
      HostF32 before = random_bf16({rows, width}, "dx before");
      DeviceArray total = bf16(before, offset), dgain_total = upload(dgain);
      device->run(RmsnormBackward{.dx = total,
                                  .dgain = dgain_total,
                                  .dy = dy_device,
                                  .x = x_device,
                                  .gain = gain_device,
                                  .rstd = rstd_device,
                                  .accumulate_dx = Accumulate::yes});
      const std::vector<double> expected = added(before.doubles(), dx.doubles());
      expect_close(total.download(), expected, added(bounds.dx, rounded_once(expected, 8 * u32)), "dx accumulated");
      const std::vector<double> doubled = added(dgain.doubles(), dgain.doubles());
      expect_close(dgain_total.download(), doubled, added(bounds.dgain, scaled_abs(doubled, u32)), "dgain accumulated");
    }
  }
}

TEST_F(CudaRmsnormTest, RowsThatDoNotFitTheRegistersAreRefused) {
  const DeviceArray x = output({1, 16'385}), gain = output({16'385}, DType::f32), rstd = output({1}, DType::f32);
  EXPECT_THROW(device->run(RmsnormForward{.y = x, .rstd = rstd, .x = x, .gain = gain, .eps = eps}), Error);
}

}  // namespace
}  // namespace vqlm::testing
