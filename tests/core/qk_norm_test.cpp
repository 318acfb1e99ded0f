#include "tests/core/qk_norm_reference.h"

#include <gtest/gtest.h>

namespace vqlm::testing {
namespace {

constexpr float eps = 1e-5f;

/// Operands of a call, by the steps of QkNormLayer.
struct Call {
  explicit Call(const QkNormCase& of)
      : c(of),
        x(random_normal({c.rows(), c.shape.row()}, "x")),
        dy(random_normal({c.rows(), c.shape.row()}, "dy")),
        q_gain(random_normal({c.q_size()}, "q_gain")),
        k_gain(random_normal({c.k_size()}, "k_gain")) {}

  void forward(Backend& backend, Tensor out) {
    backend.run(QkSquares{.squares = squares, .x = x, .shape = c.shape});
    for (std::int64_t i = 0; i < squares.size(); ++i)
      squares[i] = static_cast<float>(of_all_ranks(squares[i], c.ranks));
    backend.run(QkNormForward{.qkv = out,
                              .x = x,
                              .squares = squares,
                              .q_gain = q_gain,
                              .k_gain = k_gain,
                              .shape = c.shape,
                              .ranks = c.ranks,
                              .eps = eps});
  }
  /// dy becomes dx. The other ranks' part of the sum of products is that of squares that scale with ours.
  void backward(Backend& backend) {
    backend.run(QkDots{.dots = dots, .dqkv = dy, .x = x, .q_gain = q_gain, .k_gain = k_gain, .shape = c.shape});
    for (std::int64_t i = 0; i < dots.size(); ++i) dots[i] = static_cast<float>(of_all_ranks(dots[i], c.ranks));
    backend.run(QkNormBackward{.dqkv = dy,
                               .q_dgain = q_dgain,
                               .k_dgain = k_dgain,
                               .x = x,
                               .squares = squares,
                               .dots = dots,
                               .q_gain = q_gain,
                               .k_gain = k_gain,
                               .shape = c.shape,
                               .ranks = c.ranks,
                               .eps = eps});
  }

  QkNormCase c;
  HostF32 x, dy, q_gain, k_gain;
  HostF32 squares = poisoned({c.rows(), c.groups()}), dots = poisoned({c.rows(), c.groups()});
  HostF32 q_dgain{{c.q_size()}, 0.5f}, k_dgain{{c.k_size()}, 0.5f};
};

class QkNormTest : public OpTest {};

TEST_F(QkNormTest, ForwardEqualsReferenceAlsoInPlace) {
  for (const QkNormCase& c : qk_norm_cases()) {
    Call call(c);
    HostF32 y = poisoned(call.x.shape());
    call.forward(*backend, y);
    const std::vector<double> expected =
        qk_norm(c, call.x.doubles(), call.q_gain.doubles(), call.k_gain.doubles(), eps);
    std::vector<double> bound;
    // rstd: half of the sum's roundings (16 partial sums, 20 more) and 6; two products.
    const double relative = (static_cast<double>(c.q_size()) / 32 + 10 + 6 + 2) * u32;
    for (const double value : expected) bound.push_back(relative * std::abs(value));
    expect_close(y, expected, bound, "y");
    call.forward(*backend, call.x);
    expect_equal(call.x, y, "in place");
  }
}

TEST_F(QkNormTest, BackwardEqualsFiniteDifferences) {
  for (const QkNormCase& c : qk_norm_cases()) {
    if (c.rows() > 30 || c.ranks > 1) continue;  // on several ranks a difference here would move the others' sums
    Call call(c);
    HostF32 y = poisoned(call.x.shape());
    call.forward(*backend, y);
    const std::vector<double> x = call.x.doubles(), dy = call.dy.doubles(), q = call.q_gain.doubles(),
                              k = call.k_gain.doubles();
    call.backward(*backend);
    const auto of_x = [&](const std::vector<double>& at) { return dot(dy, qk_norm(c, at, q, k, eps)); };
    const auto of_q = [&](const std::vector<double>& at) { return dot(dy, qk_norm(c, x, at, k, eps)); };
    const auto of_k = [&](const std::vector<double>& at) { return dot(dy, qk_norm(c, x, q, at, eps)); };
    // Terms of order |dy gain rstd| <= 30 with 60 roundings, and sums over rows and heads of as many; differences lose 1e-7.
    const double bound = 60 * u32 * 30 + 1e-6;
    expect_close(call.dy, numeric_gradient(of_x, x), bound, "dx");
    const auto of_half = [](std::vector<double> gradient) {
      for (double& value : gradient) value += 0.5;  // accumulates
      return gradient;
    };
    expect_close(call.q_dgain, of_half(numeric_gradient(of_q, q)), 10 * bound, "q_dgain");
    expect_close(call.k_dgain, of_half(numeric_gradient(of_k, k)), 10 * bound, "k_dgain");
  }
}

// Two ranks with the same numbers are one rank whose row has them twice: the gradients of the first half.
TEST_F(QkNormTest, TwoRanksAreOneTwiceAsWide) {
  const AttentionShape half{1, 6, 2, 1, 4};
  const QkNormCase c{half, true, 2};
  Call call(c);
  const auto doubled = [](HostF32& sums) {
    for (std::int64_t i = 0; i < sums.size(); ++i) sums[i] *= 2;
  };
  backend->run(QkSquares{.squares = call.squares, .x = call.x, .shape = half});
  doubled(call.squares);
  backend->run(QkDots{
      .dots = call.dots, .dqkv = call.dy, .x = call.x, .q_gain = call.q_gain, .k_gain = call.k_gain, .shape = half});
  doubled(call.dots);
  HostF32 dx = call.dy.clone(), one_dx = call.dy.clone();
  const auto backward = [&](HostF32& gradient, int ranks, HostF32& squares, HostF32& dots) {
    HostF32 q({c.q_size()}), k({c.k_size()});
    backend->run(QkNormBackward{.dqkv = gradient,
                                .q_dgain = q,
                                .k_dgain = k,
                                .x = call.x,
                                .squares = squares,
                                .dots = dots,
                                .q_gain = call.q_gain,
                                .k_gain = call.k_gain,
                                .shape = half,
                                .ranks = ranks,
                                .eps = eps});
  };
  backward(dx, 2, call.squares, call.dots);
  for (std::int64_t i = 0; i < call.squares.size(); ++i) {
    call.squares[i] /= 2;
    call.dots[i] /= 2;
  }
  backward(one_dx, 1, call.squares, call.dots);  // the mean over twice as many of the same is the mean
  expect_equal(dx, one_dx, "dx");
}

TEST_F(QkNormTest, ResultsDoNotDependOnThreads) {
  const QkNormCase c{{3, 333, 4, 2, 16}, false};
  Call alone(c), shared(c);
  HostF32 y = poisoned(alone.x.shape()), y_shared = poisoned(alone.x.shape());
  const auto one = make_cpu_backend(1), three = make_cpu_backend(3);
  alone.forward(*one, y);
  shared.forward(*three, y_shared);
  alone.backward(*one);
  shared.backward(*three);
  expect_equal(y_shared, y, "y");
  expect_equal(shared.dy, alone.dy, "dx");
  expect_equal(shared.q_dgain, alone.q_dgain, "q_dgain");
  expect_equal(shared.k_dgain, alone.k_dgain, "k_dgain");
}

}  // namespace
}  // namespace vqlm::testing
