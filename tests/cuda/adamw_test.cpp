#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaAdamWTest : public CudaOpTest {
 protected:
  struct State {
    HostF32 param, m, v, grad;
  };
  static State random_state(std::int64_t n) {
    State s{random_normal({n}, "param"), random_normal({n}, "m", 0.1f), random_normal({n}, "v", 0.1f),
            random_normal({n}, "grad")};
    for (std::int64_t i = 0; i < n; ++i) s.v[i] *= s.v[i];
    return s;
  }

  /// One step on both back ends. `offsets` leave out elements in front of the f32 arrays and of the rounded copy.
  void check(std::int64_t n, const AdamWStep& step, double norm_squared, std::pair<int, int> offsets = {0, 0}) {
    State s = random_state(n);
    const DeviceArray param = upload(s.param, offsets.first), m = upload(s.m, offsets.first);
    const DeviceArray v = upload(s.v, offsets.first), grad = upload(s.grad, offsets.first);
    const DeviceArray rounded = output({n}, DType::bf16, offsets.second);
    HostF64 norm({1}, norm_squared);
    const DeviceArray device_norm = upload(norm);
    const bool clip = step.max_norm > 0;
    device->run(AdamW{.param = param,
                      .rounded = rounded,
                      .m = m,
                      .v = v,
                      .grad = grad,
                      .norm_squared = clip ? device_norm.tensor() : Tensor{},
                      .step = step});

    const HostF32 param_before = s.param.clone(), m_before = s.m.clone();
    oracle->run(AdamW{.param = s.param,
                      .m = s.m,
                      .v = s.v,
                      .grad = s.grad,
                      .norm_squared = clip ? norm.tensor() : Tensor{},
                      .step = step});
    const double keep = step.beta1, lr = step.lr;
    const double correction = 1 - std::pow(keep, static_cast<double>(step.step));
    std::vector<double> param_bound, m_bound, v_bound;
    for (std::int64_t i = 0; i < n; ++i) {
      // As for the CPU op (tests/core/adamw_test.cpp), once for each side.
      const double kept = keep * m_before[i], update = static_cast<double>(s.param[i]) - param_before[i];
      m_bound.push_back(10 * u32 * (std::abs(kept) + std::abs(s.m[i] - kept)));
      v_bound.push_back(14 * u32 * s.v[i]);
      const double correction2 = 1 - std::pow(static_cast<double>(step.beta2), static_cast<double>(step.step));
      const double slope = lr / correction / (std::sqrt(s.v[i] / correction2) + static_cast<double>(step.eps));
      param_bound.push_back(6 * u32 * std::abs(param_before[i]) + 24 * u32 * std::abs(update) +
                            24 * u32 * slope * std::abs(s.m[i]) + slope * m_bound.back());
    }
    expect_close(m.download(), s.m.doubles(), m_bound, "m");
    expect_close(v.download(), s.v.doubles(), v_bound, "v");
    const HostF32 updated = param.download();
    expect_close(updated, s.param.doubles(), param_bound, "param");
    HostF32 expected_copy({n});
    for (std::int64_t i = 0; i < n; ++i) expected_copy[i] = round_to_bf16(updated[i]);
    expect_equal(rounded.download(), expected_copy, "rounded");
  }
};

TEST_F(CudaAdamWTest, EqualsTheOracle) {
  for (const std::int64_t n : {0, 1, 7, 65, 1000, 40'001}) {
    for (const std::int64_t step : {1, 10, 100'000}) {
      check(n, {.lr = 3e-3f, .weight_decay = 0.1f, .step = step}, 0);
    }
  }
}

TEST_F(CudaAdamWTest, TakesRangesOfAnyAlignment) {
  // The same phase, as of ranges of flat buffers, and different ones.
  for (const auto& offsets : {std::pair{1, 1}, {3, 3}, {2, 6}, {0, 1}, {1, 0}, {3, 2}}) {
    check(1003, {.lr = 3e-3f, .weight_decay = 0.1f, .step = 2}, 0, offsets);
    check(3, {.lr = 3e-3f, .step = 2}, 0, offsets);
  }
}

TEST_F(CudaAdamWTest, ClipsByTheGlobalNormOnlyAboveIt) {
  for (const double norm_squared : {400.0, 0.2, 0.0})
    check(65, {.lr = 1e-2f, .step = 3, .max_norm = 0.5f}, norm_squared);
}

TEST_F(CudaAdamWTest, WithoutARoundedCopyOnlyTheStateChanges) {
  State s = random_state(65);
  const DeviceArray param = upload(s.param), m = upload(s.m), v = upload(s.v), grad = upload(s.grad);
  const DeviceArray again = upload(s.param), m_again = upload(s.m), v_again = upload(s.v), rounded = output({65});
  device->run(AdamW{.param = param, .m = m, .v = v, .grad = grad, .step = {.lr = 0.1f}});
  device->run(
      AdamW{.param = again, .rounded = rounded, .m = m_again, .v = v_again, .grad = grad, .step = {.lr = 0.1f}});
  expect_equal(param.download(), again.download(), "param");
  expect_equal(grad.download(), s.grad, "grad");
}

TEST_F(CudaAdamWTest, ANormThatIsNotFiniteSkipsTheStep) {
  for (const double norm : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    for (const float max_norm : {0.0f, 1.0f}) {
      State s = random_state(1003);
      HostF32 copy = random_bf16({1003}, "rounded");
      const DeviceArray param = upload(s.param), m = upload(s.m), v = upload(s.v), rounded = bf16(copy);
      device->run(AdamW{.param = param,
                        .rounded = rounded,
                        .m = m,
                        .v = v,
                        .grad = upload(s.grad),
                        .norm_squared = upload(HostF64({1}, norm)),
                        .step = {.lr = 0.1f, .max_norm = max_norm}});
      expect_equal(param.download(), s.param, "param");
      expect_equal(m.download(), s.m, "m");
      expect_equal(v.download(), s.v, "v");
      expect_equal(rounded.download(), copy, "rounded");
    }
  }
}

TEST_F(CudaAdamWTest, SumOfSquaresAccumulatesInDoubleAndTheSameInEveryRun) {
  for (const std::int64_t n : {0, 1, 7, 65, 1000, 100'003}) {
    for (const std::int64_t offset : {0, 3}) {
      HostF32 x = random_normal({n}, "x");
      HostF64 expected({1}, 0.25);
      const DeviceArray out = upload(expected), again = upload(expected), operand = upload(x, offset);
      device->run(AddSumOfSquares{.out = out, .x = operand});
      device->run(AddSumOfSquares{.out = again, .x = operand});
      oracle->run(AddSumOfSquares{.out = expected, .x = x});
      // Squares are exact in double; both sums round at most n times.
      expect_close(out.download<double>(), expected.doubles(), 2 * static_cast<double>(n) * 0x1p-53 * expected[0],
                   "out");
      expect_equal(again.download<double>(), out.download<double>(), "second run");
    }
  }
}

TEST_F(CudaAdamWTest, SumOfSquaresKeepsSmallTermsBesideLargeOnes) {
  HostF32 x({50'000}, 1.0f);
  x[0] = 8192.0f;  // 2^26: a float sum would stall here
  const DeviceArray out = upload(HostF64({1}));
  device->run(AddSumOfSquares{.out = out, .x = upload(x)});
  EXPECT_EQ(out.download<double>()[0], 67'108'864.0 + 49'999.0);
}

TEST_F(CudaAdamWTest, ANotANumberInTheGradientShowsInTheNorm) {
  HostF32 x({5000}, 1.0f);
  x[4321] = std::numeric_limits<float>::quiet_NaN();
  const DeviceArray out = upload(HostF64({1}));
  device->run(AddSumOfSquares{.out = out, .x = upload(x)});
  EXPECT_TRUE(std::isnan(out.download<double>()[0]));
}

TEST_F(CudaAdamWTest, MovingAverageEqualsTheOracle) {
  HostF64 finite({1}, 4.0);
  for (const std::int64_t n : {0, 1, 7, 65, 40'001}) {
    for (const auto& offsets : {std::pair{0, 0}, {3, 3}, {1, 2}}) {
      HostF32 average = random_normal({n}, "average"), x = random_normal({n}, "x");
      const DeviceArray y = upload(average, offsets.first), added = upload(x, offsets.second);
      device->run(MovingAverage{.average = y, .x = added, .norm_squared = upload(finite), .decay = 0.99f});
      std::vector<double> bound;
      for (std::int64_t i = 0; i < n; ++i)
        bound.push_back(6 * u32 * (std::abs(double{average[i]}) + 0.01 * std::abs(double{x[i]})));
      oracle->run(MovingAverage{.average = average, .x = x, .norm_squared = finite, .decay = 0.99f});
      expect_close(y.download(), average.doubles(), bound, "average");
    }
  }
}

TEST_F(CudaAdamWTest, ANormThatIsNotFiniteLeavesAMovingAverage) {
  for (const double norm : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    HostF32 average = random_normal({1003}, "average"), x = random_normal({1003}, "x");
    const DeviceArray y = upload(average);
    device->run(MovingAverage{.average = y, .x = upload(x), .norm_squared = upload(HostF64({1}, norm)), .decay = 0.5f});
    expect_equal(y.download(), average, "average");
  }
}

}  // namespace
}  // namespace vqlm::testing
