#include <gtest/gtest.h>

#include <numbers>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

class ElementwiseTest : public OpTest {};

TEST_F(ElementwiseTest, ColumnSumsAccumulateExactlyOnIntegers) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {7, 65}, {65, 7}, {1000, 65}, {1500, 3}, {3, 1500}, {0, 5}}) {
    HostF32 x = random_integers({rows, columns}, "x", -100, 100);  // sums below 2^24
    HostF32 out = random_integers({columns}, "out", -100, 100);
    std::vector<double> expected = out.doubles();
    for (std::int64_t n = 0; n < rows; ++n) {
      for (std::int64_t c = 0; c < columns; ++c) expected[static_cast<std::size_t>(c)] += x[n * columns + c];
    }
    backend->run(AddColumnSums{.out = out, .x = x});
    expect_close(out, expected, 0.0, "out");
  }
}

TEST_F(ElementwiseTest, ColumnSumsDoNotDependOnThreads) {
  HostF32 x = random_normal({999, 130}, "x");
  HostF32 alone({130}), shared({130});
  make_cpu_backend(1)->run(AddColumnSums{.out = alone, .x = x});
  make_cpu_backend(3)->run(AddColumnSums{.out = shared, .x = x});
  expect_equal(shared, alone, "out");
}

TEST_F(ElementwiseTest, ColumnSumsAndBiasesTakeAPartOfTheColumns) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {7, 65}, {1000, 5}, {0, 5}}) {
    const std::int64_t first = 3, width = first + columns + 2;
    HostF32 x = random_integers({rows, width}, "x", -100, 100), bias = random_integers({columns}, "bias", -100, 100);
    HostF32 out = bias.clone();
    std::vector<double> sums = out.doubles(), added = x.doubles();
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const std::int64_t c = i % width - first;
      if (c < 0 || c >= columns) continue;
      sums[static_cast<std::size_t>(c)] += x[i];
      added[static_cast<std::size_t>(i)] += bias[c];
    }
    backend->run(AddColumnSums{.out = out, .x = x, .first = first});
    expect_close(out, sums, 0.0, "out");
    backend->run(AddBias{.x = x, .bias = bias, .first = first});
    expect_close(x, added, 0.0, "x");
  }
}

TEST_F(ElementwiseTest, AddAndScaleAlsoInPlace) {
  for (const std::int64_t n : {0, 1, 7, 65, 40'000}) {
    HostF32 a = random_integers({n}, "a", -100, 100), b = random_integers({n}, "b", -100, 100), out = poisoned({n});
    const std::vector<double> sum = added(a.doubles(), b.doubles());
    backend->run(Add{.out = out, .a = a, .b = b});
    expect_close(out, sum, 0.0, "out");
    backend->run(Scale{.x = out, .factor = 0.5f});
    std::vector<double> half = sum;
    for (double& x : half) x /= 2;
    expect_close(out, half, 0.0, "scaled");
    backend->run(Add{.out = a, .a = a, .b = b});
    expect_close(a, sum, 0.0, "in place of a");
    backend->run(Add{.out = b, .a = b, .b = b});
  }
}

TEST_F(ElementwiseTest, SwapAxesExchangesTheFirstTwo) {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{3, 7, 65}, Shape{65, 2, 1}, Shape{2, 9, 4000}, Shape{4, 0, 3}}) {
    const std::int64_t r_count = shape[0], p_count = shape[1], width = shape[2];
    HostF32 src = random_normal(shape, "src");
    HostF32 dst = poisoned({p_count, r_count, width});
    std::vector<double> expected;
    for (std::int64_t p = 0; p < p_count; ++p) {
      for (std::int64_t r = 0; r < r_count; ++r) {
        for (std::int64_t c = 0; c < width; ++c) expected.push_back(src[(r * p_count + p) * width + c]);
      }
    }
    backend->run(SwapAxes{.dst = dst, .src = src});
    expect_close(dst, expected, 0.0, "dst");
  }
}

// ---- SwiGLU ----

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// y of gate_up (rows, 2 width).
std::vector<double> swiglu(const std::vector<double>& gate_up, std::size_t rows, std::size_t width) {
  std::vector<double> y;
  for (std::size_t n = 0; n < rows; ++n) {
    for (std::size_t i = 0; i < width; ++i) {
      const double gate = gate_up[n * 2 * width + i], up = gate_up[n * 2 * width + width + i];
      y.push_back(gate * sigmoid(gate) * up);
    }
  }
  return y;
}

/// Where exp(-|x|) is subnormal its relative precision is lost: an absolute term far below any gradient's
/// size.
constexpr double underflow = 1e-33;

struct Gradient {
  std::vector<double> value, bound;
};

/// Roundings of a sigmoid or its complement: exp 2 (Highway: 1 ulp) in the numerator and at most 1 in the
/// denominator, sum 1, division 1, product 1: 6. Two or three products follow; gate * complement has 8 on its
/// way into the sum.
Gradient swiglu_gradient(const HostF32& gate_up, const HostF32& dy, std::int64_t rows, std::int64_t width) {
  Gradient gradient{std::vector<double>(static_cast<std::size_t>(gate_up.size())), {}};
  gradient.bound = gradient.value;
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t i = 0; i < width; ++i) {
      const auto gate_at = static_cast<std::size_t>(n * 2 * width + i),
                 up_at = gate_at + static_cast<std::size_t>(width);
      const double gate = gate_up.values()[gate_at], up = gate_up.values()[up_at], dy_i = dy[n * width + i];
      const double s = sigmoid(gate), complement = sigmoid(-gate);
      gradient.value[gate_at] = dy_i * up * s * (1 + gate * complement);
      gradient.value[up_at] = dy_i * gate * s;
      const double slope = gate * complement;
      gradient.bound[gate_at] =
          u32 * std::abs(dy_i * up * s) * (10 * std::abs(1 + slope) + 8 * std::abs(slope)) + underflow;
      gradient.bound[up_at] = 9 * u32 * std::abs(gradient.value[up_at]) + underflow;
    }
  }
  return gradient;
}

/// Normal gates; some far outside of where exp is representable; and some where 1 - sigmoid computed by
/// subtraction would be wrong in every digit while gate * (1 - sigmoid) still counts.
HostF32 gates(std::int64_t rows, std::int64_t width) {
  HostF32 gate_up = random_normal({rows, 2 * width}, "gate_up", 3.0f);
  const std::vector<float> chosen{0.0f,   88.5f, -88.5f, 104.5f, -104.5f, 1e4f,  -1e4f,
                                  -87.0f, 13.0f, 14.0f,  15.0f,  15.5f,   16.0f, 16.5f};
  for (std::size_t i = 0; i < std::min(static_cast<std::size_t>(width), chosen.size()); ++i) {
    gate_up[static_cast<std::int64_t>(i)] = chosen[i];
  }
  return gate_up;
}

TEST_F(ElementwiseTest, SwigluForwardEqualsReference) {
  for (const auto& [rows, width] : {std::pair{1, 1}, {3, 7}, {7, 65}, {65, 1000}}) {
    HostF32 gate_up = gates(rows, width);
    HostF32 y = poisoned({rows, width});
    const std::vector<double> expected =
        swiglu(gate_up.doubles(), static_cast<std::size_t>(rows), static_cast<std::size_t>(width));
    std::vector<double> bound;
    for (double value : expected) bound.push_back(9 * u32 * std::abs(value) + underflow);
    backend->run(SwigluForward{.y = y, .gate_up = gate_up});
    expect_close(y, expected, bound, "y");
  }
}

TEST_F(ElementwiseTest, SwigluBackwardEqualsReferenceAlsoInPlace) {
  for (const auto& [rows, width] : {std::pair{1, 1}, {3, 7}, {7, 65}, {65, 1000}}) {
    HostF32 gate_up = gates(rows, width), dy = random_normal({rows, width}, "dy");
    const Gradient gradient = swiglu_gradient(gate_up, dy, rows, width);
    HostF32 dgate_up = poisoned(gate_up.shape());
    backend->run(SwigluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
    expect_close(dgate_up, gradient.value, gradient.bound, "dgate_up");
    backend->run(SwigluBackward{.dgate_up = gate_up, .dy = dy, .gate_up = gate_up});
    expect_equal(gate_up, dgate_up, "dgate_up in place of gate_up");
  }
}

TEST_F(ElementwiseTest, SwigluBackwardEqualsFiniteDifferences) {
  const std::int64_t rows = 3, width = 7;
  HostF32 gate_up = random_normal({rows, 2 * width}, "gate_up"), dy = random_normal({rows, width}, "dy");
  HostF32 dgate_up = poisoned(gate_up.shape());
  backend->run(SwigluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
  const std::vector<double> numeric = numeric_gradient(
      [&, dy_values = dy.doubles()](const std::vector<double>& x) { return dot(dy_values, swiglu(x, rows, width)); },
      gate_up.doubles());
  std::vector<double> bound = swiglu_gradient(gate_up, dy, rows, width).bound;
  for (double& b : bound) b += 1e-8;  // the differences' own error
  expect_close(dgate_up, numeric, bound, "dgate_up");
}

// ---- GeGLU ----

/// GELU in its tanh form and its derivative, from the definition.
double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

/// Of gates that are normal, and so large that the cubic's exponential is 0 or 1.
HostF32 gelu_gates(std::int64_t rows, std::int64_t width) {
  HostF32 gate_up = random_normal({rows, 2 * width}, "gate_up", 2.0f);
  const std::vector<float> chosen{0.0f, 5.0f, -5.0f, 9.0f, -9.0f, 1e4f, -1e4f, 1e-20f};
  for (std::size_t i = 0; i < std::min(static_cast<std::size_t>(width), chosen.size()); ++i) {
    gate_up[static_cast<std::int64_t>(i)] = chosen[i];
  }
  return gate_up;
}

std::vector<double> geglu(const std::vector<double>& gate_up, std::size_t rows, std::size_t width) {
  std::vector<double> y;
  for (std::size_t n = 0; n < rows; ++n) {
    for (std::size_t i = 0; i < width; ++i)
      y.push_back(gelu(gate_up[n * 2 * width + i]) * gate_up[(2 * n + 1) * width + i]);
  }
  return y;
}

TEST_F(ElementwiseTest, GegluForwardEqualsReference) {
  for (const auto& [rows, width] : {std::pair{1, 1}, {3, 7}, {7, 65}, {65, 1000}}) {
    HostF32 gate_up = gelu_gates(rows, width), y = poisoned({rows, width});
    const std::vector<double> expected =
        geglu(gate_up.doubles(), static_cast<std::size_t>(rows), static_cast<std::size_t>(width));
    std::vector<double> bound;
    for (std::int64_t i = 0; i < y.size(); ++i) {
      // z comes with 4 roundings, which exp(-|z|) multiplies by |z|; the reference loses 1 + tanh's digits near -1.
      const double gate = gate_up[i / width * 2 * width + i % width],
                   up = gate_up[i / width * 2 * width + width + i % width];
      const double z = std::abs(1.6 * gate * (1 + 0.045 * gate * gate));
      bound.push_back((9 + 4 * std::min(z, 110.0)) * u32 * std::abs(expected[static_cast<std::size_t>(i)]) +
                      4e-16 * std::abs(gate * up) + underflow);
    }
    backend->run(GegluForward{.y = y, .gate_up = gate_up});
    expect_close(y, expected, bound, "y");
  }
}

TEST_F(ElementwiseTest, GegluBackwardEqualsFiniteDifferencesAlsoInPlace) {
  const std::int64_t rows = 3, width = 67;
  HostF32 gate_up = random_normal({rows, 2 * width}, "gate_up", 2.0f), dy = random_normal({rows, width}, "dy");
  HostF32 dgate_up = poisoned(gate_up.shape());
  backend->run(GegluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
  const std::vector<double> numeric = numeric_gradient(
      [&, dy_values = dy.doubles()](const std::vector<double>& x) { return dot(dy_values, geglu(x, rows, width)); },
      gate_up.doubles());
  std::vector<double> bound;
  for (std::int64_t i = 0; i < gate_up.size(); ++i) {
    // |z| below 25 for these gates, |z'| below 8: 40 roundings of terms as large as dy up (1 + |gate| z').
    const std::int64_t row = i / (2 * width), column = i % width;
    const double gate = std::abs(gate_up[row * 2 * width + column]),
                 up = std::abs(gate_up[row * 2 * width + width + column]);
    bound.push_back(40 * u32 * std::abs(dy[row * width + column]) * (up + gate) * (1 + 8 * gate) + 1e-7);
  }
  expect_close(dgate_up, numeric, bound, "dgate_up");
  backend->run(GegluBackward{.dgate_up = gate_up, .dy = dy, .gate_up = gate_up});
  expect_equal(gate_up, dgate_up, "dgate_up in place of gate_up");
}

TEST_F(ElementwiseTest, GegluOfLargeGatesIsFinite) {
  HostF32 gate_up({1, 4}), dy({1, 2}, 1.0f), dgate_up = poisoned({1, 4});
  gate_up[0] = 1e4f;
  gate_up[1] = -1e4f;
  gate_up[2] = gate_up[3] = 3.0f;
  backend->run(GegluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
  expect_close(dgate_up, {3.0, 0.0, 1e4, 0.0}, 1e-30, "dgate_up");
}

}  // namespace
}  // namespace vqlm::testing
