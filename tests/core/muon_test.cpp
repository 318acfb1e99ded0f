#include <gtest/gtest.h>

#include <limits>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

class MuonTest : public OpTest {};

constexpr double not_finite[] = {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()};

TEST_F(MuonTest, MomentumIsNesterovsOfTheClippedGradient) {
  for (const std::int64_t n : {0, 1, 7, 65, 40'001}) {
    for (const float max_norm : {0.0f, 0.5f, 100.0f}) {
      HostF32 m = random_normal({n}, "m"), grad = random_normal({n}, "grad"), direction({n}, 7.0f);
      const double beta = 0.95f, clip = max_norm > 0 ? std::min(1.0, double{max_norm} / 2.0) : 1.0;
      std::vector<double> expected_m, expected, bound_m, bound;
      for (std::int64_t i = 0; i < n; ++i) {
        const double g = clip * grad[i], kept = beta * m[i], added = (1 - beta) * g;
        expected_m.push_back(kept + added);
        expected.push_back(added + beta * (kept + added));
        bound_m.push_back(4 * u32 * (std::abs(kept) + std::abs(added)));
        bound.push_back(8 * u32 * (std::abs(kept) + 2 * std::abs(added)));
      }
      backend->run(MuonMomentum{.m = m,
                                .direction = direction,
                                .grad = grad,
                                .norm_squared = HostF64({1}, 4.0),
                                .momentum = 0.95f,
                                .max_norm = max_norm});
      expect_close(m, expected_m, bound_m, "m");
      expect_close(direction, expected, bound, "direction");
    }
  }
}

TEST_F(MuonTest, ANormThatIsNotFiniteLeavesMomentumAndParameters) {
  for (const double norm : not_finite) {
    HostF32 m = random_normal({65}, "m"), grad = random_normal({65}, "grad"), direction({65}, 7.0f);
    const HostF32 before = m.clone();
    backend->run(MuonMomentum{.m = m,
                              .direction = direction,
                              .grad = grad,
                              .norm_squared = HostF64({1}, norm),
                              .momentum = 0.95f,
                              .max_norm = 1});
    expect_equal(m, before, "m");
    expect_close(direction, std::vector<double>(65, 0.0), 0.0, "direction");
    backend->run(MuonUpdate{
        .param = m, .direction = grad, .norm_squared = HostF64({1}, norm), .keep_param = 0.5f, .step_size = 1});
    expect_equal(m, before, "param");
  }
}

TEST_F(MuonTest, AddScaledAddsAndNormalises) {
  for (const std::int64_t n : {0, 1, 7, 65, 40'001}) {
    HostF32 x = random_normal({n}, "x"), y = random_normal({n}, "y"), out({n}, 7.0f);
    std::vector<double> sum, bound, scaled, scaled_bound;
    for (std::int64_t i = 0; i < n; ++i) {
      sum.push_back(-2.5 * x[i] + 0.75 * y[i]);
      bound.push_back(3 * u32 * (2.5 * std::abs(x[i]) + 0.75 * std::abs(y[i])));
      scaled.push_back(x[i] / 3.0);
      scaled_bound.push_back(3 * u32 * std::abs(x[i]));
    }
    backend->run(AddScaled{.out = out, .x = x, .y = y, .x_scale = -2.5f, .y_scale = 0.75f});
    expect_close(out, sum, bound, "sum");
    backend->run(AddScaled{.out = out, .x = x, .norm_squared = HostF64({1}, 9.0)});
    expect_close(out, scaled, scaled_bound, "scaled");
    backend->run(AddScaled{.out = x, .x = x, .y = y, .x_scale = -2.5f, .y_scale = 0.75f});  // in place
    expect_close(x, sum, bound, "in place");
    HostF32 zero({n});
    backend->run(AddScaled{.out = zero, .x = zero, .norm_squared = HostF64({1}, 0.0)});
    expect_close(zero, std::vector<double>(static_cast<std::size_t>(n), 0.0), 0.0, "zero");
  }
}

TEST_F(MuonTest, UpdateDecaysAndSteps) {
  HostF32 param({3}, 2.0f), direction({3}, -4.0f);
  backend->run(MuonUpdate{.param = param,
                          .direction = direction,
                          .norm_squared = HostF64({1}, 1.0),
                          .keep_param = 0.75f,
                          .step_size = 0.125f});
  expect_close(param, {2.0, 2.0, 2.0}, 0.0, "param");  // powers of two: exact
}

}  // namespace
}  // namespace vqlm::testing
