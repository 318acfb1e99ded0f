#include <gtest/gtest.h>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

struct Update {
  std::vector<double> param, m, v, param_bound, m_bound, v_bound;
};

/// One step in double from the float state, with the error that float arithmetic may make.
Update reference(const HostF32& param, const HostF32& m, const HostF32& v, const HostF32& grad, double norm_squared,
                 const AdamWStep& step) {
  const double beta1 = step.beta1, beta2 = step.beta2, lr = step.lr, eps = step.eps;
  const double clip = step.max_norm > 0 ? std::min(1.0, step.max_norm / std::sqrt(norm_squared)) : 1.0;
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(step.step));
  const double correction2 = 1 - std::pow(beta2, static_cast<double>(step.step));
  Update out;
  for (std::int64_t i = 0; i < param.size(); ++i) {
    const double g = grad[i] * clip;
    out.m.push_back(beta1 * m[i] + (1 - beta1) * g);
    out.v.push_back(beta2 * v[i] + (1 - beta2) * g * g);
    const double denominator = std::sqrt(out.v.back() / correction2) + eps;
    const double update = lr * (out.m.back() / correction1) / denominator;
    out.param.push_back(param[i] - lr * static_cast<double>(step.weight_decay) * param[i] - update);
    // Coefficients, clipped gradient, products and sum: 5 roundings of each term at most (7 with the square).
    out.m_bound.push_back(5 * u32 * (std::abs(beta1 * m[i]) + std::abs((1 - beta1) * g)));
    out.v_bound.push_back(7 * u32 * out.v.back());
    // The update: v's error halved by the root, and root, scale, eps, product, quotient and step size; m's
    // own error.
    out.param_bound.push_back(3 * u32 * std::abs(param[i]) + 12 * u32 * std::abs(update) +
                              lr / correction1 / denominator * out.m_bound.back());
  }
  return out;
}

class AdamWTest : public OpTest {
 protected:
  void check(std::int64_t n, const AdamWStep& step, double norm_squared) {
    HostF32 param = random_normal({n}, "param"), m = random_normal({n}, "m", 0.1f), v = random_normal({n}, "v", 0.1f);
    for (std::int64_t i = 0; i < n; ++i) v[i] *= v[i];
    HostF32 grad = random_normal({n}, "grad");
    HostF64 norm({1}, norm_squared);
    const Update expected = reference(param, m, v, grad, norm_squared, step);
    backend->run(AdamW{.param = param,
                       .m = m,
                       .v = v,
                       .grad = grad,
                       .norm_squared = step.max_norm > 0 ? norm.tensor() : Tensor{},
                       .step = step});
    expect_close(m, expected.m, expected.m_bound, "m");
    expect_close(v, expected.v, expected.v_bound, "v");
    expect_close(param, expected.param, expected.param_bound, "param");
  }
};

TEST_F(AdamWTest, EqualsReference) {
  for (const std::int64_t n : {1, 7, 65, 1000, 40'001}) {
    for (const std::int64_t step : {1, 10, 100'000}) {
      check(n, {.lr = 3e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .step = step}, 0);
    }
  }
}

TEST_F(AdamWTest, ClipsByTheGlobalNormOnlyAboveIt) {
  check(65, {.lr = 1e-2f, .step = 3, .max_norm = 0.5f}, 400.0);
  check(65, {.lr = 1e-2f, .step = 3, .max_norm = 0.5f}, 0.2);
  check(65, {.lr = 1e-2f, .step = 3, .max_norm = 0.5f}, 0.0);
}

TEST_F(AdamWTest, FirstStepMovesByTheLearningRate) {
  // m = (1 - b1) g and v = (1 - b2) g^2 are corrected to g and g^2: the step is lr * sign(g), whatever g's
  // size.
  HostF32 param({4}, 1.0f), m({4}), v({4}), grad({4});
  const float gradients[] = {1e-3f, -1e-3f, 1e3f, -2.5f};
  for (std::int64_t i = 0; i < 4; ++i) grad[i] = gradients[i];
  backend->run(AdamW{.param = param, .m = m, .v = v, .grad = grad, .step = {.lr = 0.01f}});
  expect_close(param, {0.99, 1.01, 0.99, 1.01}, 3 * u32 + 0.01 * 1e-5,
               "param");  // eps / |g| = 1e-5 of the step
}

TEST_F(AdamWTest, ZeroGradientDecaysOnly) {
  HostF32 param({3}, 2.0f), m({3}), v({3}), grad({3});
  backend->run(AdamW{.param = param, .m = m, .v = v, .grad = grad, .step = {.lr = 0.5f, .weight_decay = 0.25f}});
  expect_close(param, {1.75, 1.75, 1.75}, 0.0, "param");  // powers of two: exact
}

TEST_F(AdamWTest, SumOfSquaresAccumulatesInDouble) {
  for (const std::int64_t n : {0, 1, 7, 65, 1000, 100'003}) {
    HostF32 x = random_normal({n}, "x");
    double expected = 0.25;
    for (float value : x.values()) expected += static_cast<double>(value) * static_cast<double>(value);
    HostF64 out({1}, 0.25);
    backend->run(AddSumOfSquares{.out = out, .x = x});
    // Squares are exact; both sums round at most n times.
    expect_close(out, {expected}, 2 * static_cast<double>(n) * 0x1p-53 * expected, "out");
  }
}

TEST_F(AdamWTest, SumOfSquaresKeepsSmallTermsBesideLargeOnes) {
  HostF32 x({50'000}, 1.0f);
  x[0] = 8192.0f;  // 2^26: a float sum would stall here
  HostF64 out({1});
  backend->run(AddSumOfSquares{.out = out, .x = x});
  expect_close(out, {67'108'864.0 + 49'999.0}, 0.0, "out");
}

TEST_F(AdamWTest, SumOfSquaresDoesNotDependOnThreads) {
  HostF32 x = random_normal({100'003}, "x");
  HostF64 alone({1}), shared({1});
  make_cpu_backend(1)->run(AddSumOfSquares{.out = alone, .x = x});
  make_cpu_backend(3)->run(AddSumOfSquares{.out = shared, .x = x});
  expect_equal(shared, alone, "out");
}

TEST_F(AdamWTest, MovingAverageKeepsAndAdds) {
  for (const std::int64_t n : {0, 1, 7, 65, 40'001}) {
    HostF32 average = random_normal({n}, "average"), x = random_normal({n}, "x");
    const float decay = 0.99f;
    std::vector<double> expected, bound;
    for (std::int64_t i = 0; i < n; ++i) {
      const double kept = double{decay} * average[i], added = (1 - double{decay}) * x[i];
      expected.push_back(kept + added);
      bound.push_back(3 * u32 * (std::abs(kept) + std::abs(added)));  // coefficient, product, sum
    }
    backend->run(MovingAverage{.average = average, .x = x, .norm_squared = HostF64({1}, 2.0), .decay = decay});
    expect_close(average, expected, bound, "average");
  }
}

TEST_F(AdamWTest, ANormThatIsNotFiniteLeavesAMovingAverage) {
  for (const double norm : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    HostF32 average = random_normal({65}, "average"), x = random_normal({65}, "x");
    const HostF32 before = average.clone();
    backend->run(MovingAverage{.average = average, .x = x, .norm_squared = HostF64({1}, norm), .decay = 0.5f});
    expect_equal(average, before, "average");
  }
}

}  // namespace
}  // namespace vqlm::testing
