#include "tests/core/qk_norm_reference.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

constexpr float eps = 1e-5f;

class CudaQkNormTest : public CudaOpTest {
 protected:
  /// Roundings on a term's way through a group's sum, on both sides: a warp's lanes and its reduction, 16 partial sums and 20.
  static double sum_roundings(const QkNormCase& c) {
    return static_cast<double>(std::max(c.q_size(), c.k_size())) / 8 + 40;
  }
};

TEST_F(CudaQkNormTest, ForwardEqualsTheOracle) {
  for (const QkNormCase& c : qk_norm_cases()) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 x = random_bf16({c.rows(), c.shape.row()}, "x"), q = random_normal({c.q_size()}, "q");
      HostF32 k = random_normal({c.k_size()}, "k"), squares({c.rows(), c.groups()}), expected(x.shape());
      oracle->run(QkSquares{.squares = squares, .x = x, .shape = c.shape});
      oracle->run(QkNormForward{.qkv = expected,
                                .x = x,
                                .squares = squares,
                                .q_gain = q,
                                .k_gain = k,
                                .shape = c.shape,
                                .ranks = c.ranks,
                                .eps = eps});
      const DeviceArray in = bf16(x, offset), out = output(x.shape()), sums = output(squares.shape(), DType::f32);
      device->run(QkSquares{.squares = sums, .x = in, .shape = c.shape});
      std::vector<double> sums_bound, bound;
      for (const double value : squares.doubles()) sums_bound.push_back(sum_roundings(c) * u32 * value);
      expect_close(sums.download(), squares.doubles(), sums_bound, "squares");
      device->run(QkNormForward{.qkv = out,
                                .x = in,
                                .squares = sums,
                                .q_gain = upload(q),
                                .k_gain = upload(k),
                                .shape = c.shape,
                                .ranks = c.ranks,
                                .eps = eps});
      for (const double value : expected.doubles())
        bound.push_back((u16 + (sum_roundings(c) + 12) * u32) * std::abs(value));
      expect_close(out.download(), expected.doubles(), bound, "qkv");
    }
  }
}

TEST_F(CudaQkNormTest, BackwardEqualsTheOracle) {
  for (const QkNormCase& c : qk_norm_cases()) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 x = random_bf16({c.rows(), c.shape.row()}, "x"), dy = random_bf16(x.shape(), "dy");
      HostF32 q = random_normal({c.q_size()}, "q"), k = random_normal({c.k_size()}, "k");
      HostF32 squares({c.rows(), c.groups()}), dots(squares.shape()), dx = dy.clone(), dq({c.q_size()}, 3.0f),
                                                                      dk({c.k_size()}, 3.0f);
      oracle->run(QkSquares{.squares = squares, .x = x, .shape = c.shape});
      oracle->run(QkDots{.dots = dots, .dqkv = dy, .x = x, .q_gain = q, .k_gain = k, .shape = c.shape});
      const DeviceArray in = bf16(x), gradient = bf16(dy, offset), device_dots = output(dots.shape(), DType::f32);
      const DeviceArray q_gain = upload(q), k_gain = upload(k), q_dgain = upload(dq), k_dgain = upload(dk);
      device->run(
          QkDots{.dots = device_dots, .dqkv = gradient, .x = in, .q_gain = q_gain, .k_gain = k_gain, .shape = c.shape});
      // Of each group: sum |dy gain x|, rstd, and what dots may be off by; of each gain: sum |dy xhat|.
      std::vector<double> dots_bound(static_cast<std::size_t>(dots.size())),
          dx_bound(static_cast<std::size_t>(x.size()));
      std::vector<double> dq_bound(static_cast<std::size_t>(dq.size())), dk_bound(static_cast<std::size_t>(dk.size()));
      // Rows and heads that a gain's gradient adds up, on both sides.
      const double column_roundings = 2 * static_cast<double>(c.rows() * c.shape.heads) + 40;
      for (std::int64_t n = 0; n < c.rows(); ++n) {
        for (std::int64_t g = 0; g < c.groups(); ++g) {
          const QkGroup group = qk_group(c.shape, c.groups(), g);
          const HostF32& gain = group.key ? k : q;
          double terms = 0;
          const auto at = static_cast<std::size_t>(n * c.groups() + g);
          const double mean_square = squares[n * c.groups() + g] / static_cast<double>(group.size * c.ranks);
          const double r = 1 / std::sqrt(mean_square + static_cast<double>(eps));
          for (std::int64_t i = 0; i < group.size; ++i) {
            const std::int64_t e = n * c.shape.row() + group.begin + i;
            terms += std::abs(static_cast<double>(dy[e]) * gain[i] * x[e]);
            (group.key ? dk_bound : dq_bound)[static_cast<std::size_t>(i)] +=
                (column_roundings + 12) * u32 * std::abs(static_cast<double>(dy[e]) * x[e] * r);
          }
          dots_bound[at] = sum_roundings(c) * u32 * terms;
          for (std::int64_t i = 0; i < group.size; ++i) {
            const std::int64_t e = n * c.shape.row() + group.begin + i;
            const double slope = r * r * r * terms / static_cast<double>(group.size * c.ranks);
            dx_bound[static_cast<std::size_t>(e)] =
                (sum_roundings(c) + 24) * u32 *
                (std::abs(static_cast<double>(dy[e]) * gain[i] * r) + slope * std::abs(static_cast<double>(x[e])));
          }
        }
      }
      expect_close(device_dots.download(), dots.doubles(), dots_bound, "dots");
      const DeviceArray sums = upload(squares), same_dots = upload(dots);
      oracle->run(QkNormBackward{.dqkv = dx,
                                 .q_dgain = dq,
                                 .k_dgain = dk,
                                 .x = x,
                                 .squares = squares,
                                 .dots = dots,
                                 .q_gain = q,
                                 .k_gain = k,
                                 .shape = c.shape,
                                 .ranks = c.ranks,
                                 .eps = eps});
      device->run(QkNormBackward{.dqkv = gradient,
                                 .q_dgain = q_dgain,
                                 .k_dgain = k_dgain,
                                 .x = in,
                                 .squares = sums,
                                 .dots = same_dots,
                                 .q_gain = q_gain,
                                 .k_gain = k_gain,
                                 .shape = c.shape,
                                 .ranks = c.ranks,
                                 .eps = eps});
      expect_close(gradient.download(), dx.doubles(), added(rounded_once(dx.doubles()), dx_bound), "dx");
      for (double& b : dq_bound) b += 6 * u32;
      for (double& b : dk_bound) b += 6 * u32;
      expect_close(q_dgain.download(), dq.doubles(), dq_bound, "q_dgain");
      expect_close(k_dgain.download(), dk.doubles(), dk_bound, "k_dgain");
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
