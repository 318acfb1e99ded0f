#include <gtest/gtest.h>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

constexpr float eps = 1e-5f;

/// Roundings on one term's way through a row's sum: the smallest vectors (SSE2) keep 16 partial sums.
double row_sum_roundings(std::int64_t width) {
  return static_cast<double>(width) / 16 + 20;
}
/// Relative error of rstd: half of the sum's, and the product, mean, eps, root and division.
double rstd_error(std::int64_t width) {
  return (row_sum_roundings(width) / 2 + 4) * u32;
}

struct Forward {
  std::vector<double> y, rstd;
};

/// y and rstd of x (rows, width), in double.
Forward rmsnorm(const std::vector<double>& x, const std::vector<double>& gain) {
  const std::size_t width = gain.size(), rows = x.size() / width;
  Forward out{std::vector<double>(x.size()), std::vector<double>(rows)};
  for (std::size_t n = 0; n < rows; ++n) {
    double squares = 0;
    for (std::size_t i = 0; i < width; ++i) squares += x[n * width + i] * x[n * width + i];
    out.rstd[n] = 1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(eps));
    for (std::size_t i = 0; i < width; ++i) out.y[n * width + i] = x[n * width + i] * out.rstd[n] * gain[i];
  }
  return out;
}

std::vector<double> scaled_abs(std::vector<double> x, double factor) {
  for (double& value : x) value = std::abs(value) * factor;
  return x;
}

class RmsnormTest : public OpTest {
 protected:
  using Size = std::pair<std::int64_t, std::int64_t>;
  const std::vector<Size> sizes{{1, 1}, {7, 7}, {3, 65}, {65, 130}, {70, 1000}};
};

TEST_F(RmsnormTest, ForwardEqualsReference) {
  for (const auto& [rows, width] : sizes) {
    HostF32 x = random_normal({rows, width}, "x"), gain = random_normal({width}, "gain");
    HostF32 y = poisoned({rows, width}), rstd = poisoned({rows});
    backend->run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = eps});
    const Forward expected = rmsnorm(x.doubles(), gain.doubles());
    expect_close(rstd, expected.rstd, scaled_abs(expected.rstd, rstd_error(width)), "rstd");
    expect_close(y, expected.y, scaled_abs(expected.y, rstd_error(width) + 2 * u32), "y");
  }
}

TEST_F(RmsnormTest, ForwardAddsTheBranchAlsoInPlace) {
  for (const auto& [rows, width] : sizes) {
    HostF32 x = random_normal({rows, width}, "x"), branch = random_normal({rows, width}, "branch");
    HostF32 gain = random_normal({width}, "gain");
    HostF32 y = poisoned({rows, width}), rstd = poisoned({rows}), sum = poisoned({rows, width});
    backend->run(RmsnormForward{.y = y, .rstd = rstd, .sum = sum, .x = x, .branch = branch, .gain = gain, .eps = eps});
    const std::vector<double> exact = added(x.doubles(), branch.doubles());
    expect_close(sum, exact, scaled_abs(exact, u32), "sum");
    // The op normalises the sum that it stores.
    const Forward expected = rmsnorm(sum.doubles(), gain.doubles());
    expect_close(rstd, expected.rstd, scaled_abs(expected.rstd, rstd_error(width)), "rstd");
    expect_close(y, expected.y, scaled_abs(expected.y, rstd_error(width) + 2 * u32), "y");

    HostF32 over_x = x.clone(), over_branch = branch.clone(), y_again = poisoned({rows, width});
    backend->run(RmsnormForward{
        .y = y_again, .rstd = rstd, .sum = over_x, .x = over_x, .branch = branch, .gain = gain, .eps = eps});
    expect_equal(over_x, sum, "sum in place of x");
    expect_equal(y_again, y, "y");
    backend->run(RmsnormForward{
        .y = y_again, .rstd = rstd, .sum = over_branch, .x = x, .branch = over_branch, .gain = gain, .eps = eps});
    expect_equal(over_branch, sum, "sum in place of branch");
    expect_equal(y_again, y, "y");
  }
}

TEST_F(RmsnormTest, ZeroRowsGiveZerosAndNoRowsGiveNothing) {
  HostF32 x({2, 65}), gain({65}, 1.0f), y = poisoned({2, 65}), rstd({2});
  backend->run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = eps});
  expect_close(y, std::vector<double>(130, 0.0), 0.0, "y");
  HostF32 none({0, 65}), no_rstd({0}), dgain({65}, 3.0f);
  backend->run(RmsnormForward{.y = none, .rstd = no_rstd, .x = none, .gain = gain, .eps = eps});
  backend->run(RmsnormBackward{.dx = none,
                               .dgain = dgain,
                               .dy = none,
                               .x = none,
                               .gain = gain,
                               .rstd = no_rstd,
                               .accumulate_dx = Accumulate::no});
  expect_close(dgain, std::vector<double>(65, 3.0), 0.0, "dgain");
}

struct Backward {
  std::vector<double> dx, dx_bound, dgain, dgain_bound;
};

/// The analytic gradients and the error that float arithmetic may make: rstd comes with rstd_error.
Backward rmsnorm_gradients(const HostF32& dy, const HostF32& x, const HostF32& gain) {
  const std::int64_t width = gain.size(), rows = x.size() / width;
  const std::vector<double> rstd = rmsnorm(x.doubles(), gain.doubles()).rstd;
  Backward out;
  out.dgain.resize(static_cast<std::size_t>(width));
  out.dgain_bound = out.dgain;
  // Sums over rows: 16 or more rows a block, then at most 64 blocks, then dgain itself.
  const double column_roundings = 16 + static_cast<double>(rows) / 16 + 2;
  for (std::int64_t n = 0; n < rows; ++n) {
    const double r = rstd[static_cast<std::size_t>(n)];
    double mean = 0, mean_abs = 0;  // of g * x
    for (std::int64_t i = 0; i < width; ++i) {
      const double term = static_cast<double>(dy[n * width + i]) * static_cast<double>(gain[i]) * x[n * width + i];
      mean += term / static_cast<double>(width);
      mean_abs += std::abs(term) / static_cast<double>(width);
    }
    for (std::int64_t i = 0; i < width; ++i) {
      const double dy_i = dy[n * width + i], x_i = x[n * width + i], g = dy_i * gain[i];
      out.dx.push_back(r * (g - x_i * r * r * mean));
      out.dx_bound.push_back((rstd_error(width) + 3 * u32) * std::abs(r * g) +
                             (3 * rstd_error(width) + (row_sum_roundings(width) + 8) * u32) * r * r * r *
                                 std::abs(x_i) * mean_abs);
      const auto at = static_cast<std::size_t>(i);
      out.dgain[at] += dy_i * x_i * r;
      out.dgain_bound[at] += (rstd_error(width) + (column_roundings + 2) * u32) * std::abs(dy_i * x_i * r);
    }
  }
  return out;
}

TEST_F(RmsnormTest, BackwardEqualsReference) {
  for (const auto& [rows, width] : sizes) {
    HostF32 x = random_normal({rows, width}, "x"), gain = random_normal({width}, "gain");
    HostF32 dy = random_normal({rows, width}, "dy"), y({rows, width}), rstd({rows});
    backend->run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = eps});
    const Backward expected = rmsnorm_gradients(dy, x, gain);

    HostF32 dx = poisoned({rows, width}), dgain({width});
    backend->run(RmsnormBackward{
        .dx = dx, .dgain = dgain, .dy = dy, .x = x, .gain = gain, .rstd = rstd, .accumulate_dx = Accumulate::no});
    expect_close(dx, expected.dx, expected.dx_bound, "dx");
    expect_close(dgain, expected.dgain, expected.dgain_bound, "dgain");

    HostF32 in_place = dy.clone(), dgain_again({width});
    backend->run(RmsnormBackward{.dx = in_place,
                                 .dgain = dgain_again,
                                 .dy = in_place,
                                 .x = x,
                                 .gain = gain,
                                 .rstd = rstd,
                                 .accumulate_dx = Accumulate::no});
    expect_equal(in_place, dx, "dx in place of dy");
    expect_equal(dgain_again, dgain, "dgain");

    HostF32 over_x = x.clone(), dgain_over_x({width});
    backend->run(RmsnormBackward{.dx = over_x,
                                 .dgain = dgain_over_x,
                                 .dy = dy,
                                 .x = over_x,
                                 .gain = gain,
                                 .rstd = rstd,
                                 .accumulate_dx = Accumulate::no});
    expect_equal(over_x, dx, "dx in place of x");
    expect_equal(dgain_over_x, dgain, "dgain");

    HostF32 total = random_normal({rows, width}, "dx before");
    const std::vector<double> dx_total = added(total.doubles(), expected.dx);
    const std::vector<double> dgain_total = added(dgain.doubles(), expected.dgain);
    backend->run(RmsnormBackward{
        .dx = total, .dgain = dgain, .dy = dy, .x = x, .gain = gain, .rstd = rstd, .accumulate_dx = Accumulate::yes});
    expect_close(total, dx_total, added(expected.dx_bound, scaled_abs(dx_total, u32)), "dx accumulated");
    expect_close(dgain, dgain_total, added(expected.dgain_bound, scaled_abs(dgain_total, u32)), "dgain accumulated");
  }
}

TEST_F(RmsnormTest, BackwardEqualsFiniteDifferences) {
  const std::int64_t rows = 3, width = 7;
  HostF32 x = random_normal({rows, width}, "x"), gain = random_normal({width}, "gain");
  HostF32 dy = random_normal({rows, width}, "dy"), y({rows, width}), rstd({rows});
  HostF32 dx = poisoned({rows, width}), dgain({width});
  backend->run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = eps});
  backend->run(RmsnormBackward{
      .dx = dx, .dgain = dgain, .dy = dy, .x = x, .gain = gain, .rstd = rstd, .accumulate_dx = Accumulate::no});

  const std::vector<double> x_values = x.doubles(), gain_values = gain.doubles(), dy_values = dy.doubles();
  const auto of_x = [&](const std::vector<double>& at) { return dot(dy_values, rmsnorm(at, gain_values).y); };
  const auto of_gain = [&](const std::vector<double>& at) { return dot(dy_values, rmsnorm(x_values, at).y); };
  const Backward expected = rmsnorm_gradients(dy, x, gain);
  const std::vector<double> difference_error(x_values.size(), 1e-8), gain_difference_error(gain_values.size(), 1e-8);
  expect_close(dx, numeric_gradient(of_x, x_values), added(expected.dx_bound, difference_error), "dx");
  expect_close(dgain, numeric_gradient(of_gain, gain_values), added(expected.dgain_bound, gain_difference_error),
               "dgain");
}

TEST_F(RmsnormTest, ResultsDoNotDependOnThreads) {
  HostF32 x = random_normal({999, 66}, "x"), gain = random_normal({66}, "gain"), dy = random_normal({999, 66}, "dy");
  HostF32 y({999, 66}), rstd({999}), dx_alone({999, 66}), dx_shared({999, 66}), dgain_alone({66}), dgain_shared({66});
  backend->run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = eps});
  make_cpu_backend(1)->run(RmsnormBackward{.dx = dx_alone,
                                           .dgain = dgain_alone,
                                           .dy = dy,
                                           .x = x,
                                           .gain = gain,
                                           .rstd = rstd,
                                           .accumulate_dx = Accumulate::no});
  make_cpu_backend(3)->run(RmsnormBackward{.dx = dx_shared,
                                           .dgain = dgain_shared,
                                           .dy = dy,
                                           .x = x,
                                           .gain = gain,
                                           .rstd = rstd,
                                           .accumulate_dx = Accumulate::no});
  expect_equal(dx_shared, dx_alone, "dx");
  expect_equal(dgain_shared, dgain_alone, "dgain");
}

}  // namespace
}  // namespace vqlm::testing
