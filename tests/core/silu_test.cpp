#include <gtest/gtest.h>

#include "core/ops/silu.h"
#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

/// Where exp(-|x|) is subnormal its relative precision is lost: an absolute term far below any gradient's size.
constexpr double underflow = 1e-33;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// Normal values, and some far outside of where exp is representable.
HostF32 gates(std::int64_t n) {
  HostF32 z = random_normal({n}, "z", 3.0f);
  const std::vector<float> chosen{0.0f, 88.5f, -88.5f, 104.5f, -104.5f, 1e4f, -1e4f, -87.0f, 15.5f, 16.5f};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(n, std::ssize(chosen)); ++i)
    z[i] = chosen[static_cast<std::size_t>(i)];
  return z;
}

std::vector<double> residual(const std::vector<double>& x, const std::vector<double>& z) {
  std::vector<double> y;
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back(x[i] + z[i] * sigmoid(z[i]));
  return y;
}

struct Gradient {
  std::vector<double> value, bound;
};

/// Roundings of a sigmoid or its complement: 6 (as SwiGLU's test counts them); two products follow, z * complement has 8 on its
/// way into the sum.
Gradient gradient_of(const HostF32& dy, const HostF32& z) {
  Gradient gradient;
  for (std::int64_t i = 0; i < z.size(); ++i) {
    const double v = z[i], s = sigmoid(v), slope = v * sigmoid(-v), dy_i = dy[i];
    gradient.value.push_back(dy_i * s * (1 + slope));
    gradient.bound.push_back(u32 * std::abs(dy_i * s) * (10 * std::abs(1 + slope) + 8 * std::abs(slope)) + underflow);
  }
  return gradient;
}

class SiluTest : public OpTest {
 protected:
  const std::vector<std::int64_t> sizes{0, 1, 7, 65, 40'000};
};

TEST_F(SiluTest, ForwardEqualsReferenceAlsoInPlace) {
  for (const std::int64_t n : sizes) {
    HostF32 x = random_normal({n}, "x"), z = gates(n), y = poisoned({n});
    const std::vector<double> expected = residual(x.doubles(), z.doubles());
    std::vector<double> bound;
    for (std::int64_t i = 0; i < n; ++i)
      bound.push_back(u32 * std::abs(expected[static_cast<std::size_t>(i)]) + 9 * u32 * std::abs(z[i]) + underflow);
    backend->run(SiluResidualForward{.y = y, .x = x, .z = z});
    expect_close(y, expected, bound, "y");
    HostF32 in_x = x.clone();
    backend->run(SiluResidualForward{.y = in_x, .x = in_x, .z = z});
    expect_equal(in_x, y, "y in place of x");
    backend->run(SiluResidualForward{.y = z, .x = x, .z = z});
    expect_equal(z, y, "y in place of z");
  }
}

TEST_F(SiluTest, BackwardEqualsReferenceAlsoInPlace) {
  for (const std::int64_t n : sizes) {
    HostF32 dy = random_normal({n}, "dy"), z = gates(n), dz = poisoned({n});
    const Gradient gradient = gradient_of(dy, z);
    backend->run(SiluResidualBackward{.dz = dz, .dy = dy, .z = z});
    expect_close(dz, gradient.value, gradient.bound, "dz");
    HostF32 in_dy = dy.clone();
    backend->run(SiluResidualBackward{.dz = in_dy, .dy = in_dy, .z = z});
    expect_equal(in_dy, dz, "dz in place of dy");
    backend->run(SiluResidualBackward{.dz = z, .dy = dy, .z = z});
    expect_equal(z, dz, "dz in place of z");
  }
}

TEST_F(SiluTest, BackwardEqualsFiniteDifferences) {
  HostF32 x = random_normal({21}, "x"), dy = random_normal({21}, "dy"), z = random_normal({21}, "z");
  HostF32 dz = poisoned({21});
  backend->run(SiluResidualBackward{.dz = dz, .dy = dy, .z = z});
  const std::vector<double> numeric = numeric_gradient(
      [&](const std::vector<double>& at) { return dot(dy.doubles(), residual(x.doubles(), at)); }, z.doubles());
  std::vector<double> bound = gradient_of(dy, z).bound;
  for (double& b : bound) b += 1e-8;  // the differences' own error
  expect_close(dz, numeric, bound, "dz");
}

TEST_F(SiluTest, DoesNotDependOnThreads) {
  HostF32 x = random_normal({40'001}, "x"), z = random_normal({40'001}, "z");
  HostF32 alone({40'001}), shared({40'001});
  make_cpu_backend(1)->run(SiluResidualForward{.y = alone, .x = x, .z = z});
  make_cpu_backend(3)->run(SiluResidualForward{.y = shared, .x = x, .z = z});
  expect_equal(shared, alone, "y");
}

}  // namespace
}  // namespace vqlm::testing
