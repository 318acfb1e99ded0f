#include "core/ops/silu.h"

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

/// Where the sigmoid is below 2^-126 it may be flushed to zero: an absolute term far below any gradient's size.
constexpr double underflow = 1e-33;

/// Relative error of a sigmoid on the GPU and the CPU's, as SwiGLU's test counts it.
double sigmoid_error(double z) {
  return (2 * (2 + 1.173 * std::abs(z)) + 4 + 1 + 6) * u32;
}

/// Normal values, and some chosen: where exp overflows or vanishes, and where 1 - sigmoid by subtraction has no correct digit.
HostF32 gates(std::int64_t n) {
  HostF32 z = random_bf16({n}, "z", 3.0f);
  const std::vector<float> chosen{0.0f, 88.5f, -88.5f, 104.5f, -104.5f, 1e4f, -1e4f, -87.0f, 13.0f, 15.5f, 16.5f};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(n, std::ssize(chosen)); ++i)
    z[i] = round_to_bf16(chosen[static_cast<std::size_t>(i)]);
  return z;
}

class CudaSiluTest : public CudaOpTest {
 protected:
  /// Tails of packs, and more than a block's threads.
  const std::vector<std::int64_t> sizes{0, 1, 7, 8, 65, 2056, 20'011};
};

TEST_F(CudaSiluTest, ForwardEqualsTheOracleAlsoInPlace) {
  for (const std::int64_t n : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 x = random_bf16({n}, "x"), z = gates(n), expected({n});
      oracle->run(SiluResidualForward{.y = expected, .x = x, .z = z});
      std::vector<double> bound;
      for (std::int64_t i = 0; i < n; ++i)
        bound.push_back((u16 + 4 * u32) * std::abs(expected[i]) + (sigmoid_error(z[i]) + 4 * u32) * std::abs(z[i]) +
                        underflow);
      DeviceArray y = output({n}), in_x = bf16(x, offset), in_z = bf16(z, offset);
      device->run(SiluResidualForward{.y = y, .x = in_x, .z = in_z});
      expect_close(y.download(), expected.doubles(), bound, "y");
      device->run(SiluResidualForward{.y = in_x, .x = in_x, .z = in_z});
      expect_equal(in_x.download(), y.download(), "y in place of x");
      device->run(SiluResidualForward{.y = in_z, .x = bf16(x), .z = in_z});
      expect_equal(in_z.download(), y.download(), "y in place of z");
    }
  }
}

TEST_F(CudaSiluTest, BackwardEqualsTheOracleAlsoInPlace) {
  for (const std::int64_t n : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 dy = random_bf16({n}, "dy"), z = gates(n), expected({n});
      oracle->run(SiluResidualBackward{.dz = expected, .dy = dy, .z = z});
      std::vector<double> bound;
      for (std::int64_t i = 0; i < n; ++i) {
        const double v = z[i], sigmoid = 1 / (1 + std::exp(-v)), slope = std::abs(v) / (1 + std::exp(v)), dy_i = dy[i];
        // 1 - sigmoid near sigmoid = 1: the roundings of sum, quotient (2 ulp) and difference, absolute.
        const double subtraction = v > 0 && v < 20 ? 6 * u32 * v : 0;
        bound.push_back(u16 * std::abs(expected[i]) + underflow +
                        (sigmoid_error(v) + 8 * u32) * std::abs(dy_i * sigmoid) * (1 + 2 * slope) +
                        subtraction * std::abs(dy_i));
      }
      DeviceArray dz = output({n}), in_dy = bf16(dy, offset), in_z = bf16(z, offset);
      device->run(SiluResidualBackward{.dz = dz, .dy = in_dy, .z = in_z});
      expect_close(dz.download(), expected.doubles(), bound, "dz");
      device->run(SiluResidualBackward{.dz = in_dy, .dy = in_dy, .z = in_z});
      expect_equal(in_dy.download(), dz.download(), "dz in place of dy");
      device->run(SiluResidualBackward{.dz = in_z, .dy = bf16(dy), .z = in_z});
      expect_equal(in_z.download(), dz.download(), "dz in place of z");
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
