#include <gtest/gtest.h>

#include <sstream>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

constexpr double theta = 10'000.0;

/// theta^(-2i / head_dim), the frequencies of the paper.
std::vector<double> plain_frequencies(int head_dim) {
  std::vector<double> frequencies;
  for (int i = 0; i < head_dim / 2; ++i) frequencies.push_back(std::pow(theta, -2.0 * i / head_dim));
  return frequencies;
}

RopePositions positions_of(std::vector<double>& frequencies, std::int64_t first = 0) {
  return {Tensor(frequencies.data(), DType::f64, {static_cast<std::int64_t>(frequencies.size())}), first};
}

/// The rotation by direction * angle of the query and key heads, in double.
std::vector<double> rotated(std::vector<double> qkv, const AttentionShape& shape,
                            const std::vector<double>& frequencies, double direction, std::int64_t first = 0) {
  const std::int64_t half = shape.head_dim / 2;
  for (std::int64_t row = 0; row < shape.batch * shape.seq_len; ++row) {
    const auto t = static_cast<double>(first + row % shape.seq_len);
    for (std::int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = direction * t * frequencies[static_cast<std::size_t>(i)];
        double& low = qkv[static_cast<std::size_t>(row * shape.row() + head * shape.head_dim + i)];
        double& high = qkv[static_cast<std::size_t>(row * shape.row() + head * shape.head_dim + half + i)];
        const double a = low, b = high;
        low = a * std::cos(angle) - b * std::sin(angle);
        high = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return qkv;
}

HostF32 random_qkv(const AttentionShape& shape) {
  return random_normal({shape.batch, shape.seq_len, shape.row()}, "qkv");
}

/// Cosine, product and sum round once each: 3 u (|a cos| + |b sin|) <= 3 sqrt(2) u |(a, b)| <= 6 u max(|a|,
/// |b|).
double bound_of(const std::vector<double>& qkv) {
  return 3 * 2 * u32 * max_abs(qkv);
}

class RopeTest : public OpTest, public ::testing::WithParamInterface<AttentionShape> {};

TEST_P(RopeTest, ForwardAndBackwardEqualReference) {
  const AttentionShape& shape = GetParam();
  std::vector<double> frequencies = plain_frequencies(shape.head_dim);
  const RopePositions positions = positions_of(frequencies);
  HostF32 qkv = random_qkv(shape), dqkv = qkv.clone();
  const std::vector<double> before = qkv.doubles();
  backend->run(RopeForward{.qkv = qkv, .shape = shape, .positions = positions});
  expect_close(qkv, rotated(before, shape, frequencies, 1), bound_of(before), "qkv");
  backend->run(RopeBackward{.dqkv = dqkv, .shape = shape, .positions = positions});
  expect_close(dqkv, rotated(before, shape, frequencies, -1), bound_of(before), "dqkv");
  // A rotation and its inverse.
  backend->run(RopeBackward{.dqkv = qkv, .shape = shape, .positions = positions});
  expect_close(qkv, before, 2 * bound_of(before), "there and back");
}

TEST_P(RopeTest, FirstPositionsAndValuesStay) {
  const AttentionShape& shape = GetParam();
  std::vector<double> frequencies = plain_frequencies(shape.head_dim);
  const RopePositions positions = positions_of(frequencies);
  HostF32 qkv = random_qkv(shape);
  const HostF32 before = qkv.clone();
  backend->run(RopeForward{.qkv = qkv, .shape = shape, .positions = positions});
  const std::int64_t rotated_columns = static_cast<std::int64_t>(shape.heads + shape.kv_heads) * shape.head_dim;
  for (std::int64_t row = 0; row < shape.batch * shape.seq_len; ++row) {
    const std::int64_t first_kept = row % shape.seq_len == 0 ? 0 : rotated_columns;
    for (std::int64_t i = first_kept; i < shape.row(); ++i) {
      ASSERT_EQ(qkv[row * shape.row() + i], before[row * shape.row() + i]) << "row " << row << ", column " << i;
    }
  }
}

std::string shape_name(const ::testing::TestParamInfo<AttentionShape>& parameter) {
  const AttentionShape& s = parameter.param;
  std::ostringstream name;
  name << "B" << s.batch << "T" << s.seq_len << "H" << s.heads << "K" << s.kv_heads << "D" << s.head_dim;
  return name.str();
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest,
                         ::testing::Values(AttentionShape{1, 1, 1, 1, 2}, AttentionShape{2, 7, 3, 1, 6},
                                           AttentionShape{3, 65, 4, 2, 16}, AttentionShape{1, 1000, 2, 2, 64},
                                           AttentionShape{2, 33, 1, 1, 130}),
                         shape_name);

class RopePositionTest : public OpTest {};

TEST_F(RopePositionTest, RowsFromTheFirstPositionOn) {
  // Frequencies of no formula, and positions on both sides of a block's length.
  for (const std::int64_t first : {1, 63, 64, 1'000'000}) {
    const AttentionShape shape{2, 70, 2, 1, 6};
    std::vector<double> frequencies = {0.9, 0.31, 1e-4};
    HostF32 qkv = random_qkv(shape), dqkv = qkv.clone();
    const std::vector<double> before = qkv.doubles();
    backend->run(RopeForward{.qkv = qkv, .shape = shape, .positions = positions_of(frequencies, first)});
    expect_close(qkv, rotated(before, shape, frequencies, 1, first), bound_of(before), "qkv");
    backend->run(RopeBackward{.dqkv = dqkv, .shape = shape, .positions = positions_of(frequencies, first)});
    expect_close(dqkv, rotated(before, shape, frequencies, -1, first), bound_of(before), "dqkv");
  }
}

class RopeGradientTest : public OpTest {};

TEST_F(RopeGradientTest, BackwardEqualsFiniteDifferences) {
  const AttentionShape shape{2, 5, 2, 1, 4};
  std::vector<double> frequencies = plain_frequencies(shape.head_dim);
  HostF32 dy = random_normal({shape.batch, shape.seq_len, shape.row()}, "dy");
  const std::vector<double> weights = dy.doubles();
  const std::vector<double> numeric =
      numeric_gradient([&](const std::vector<double>& x) { return dot(weights, rotated(x, shape, frequencies, 1)); },
                       random_qkv(shape).doubles());
  backend->run(RopeBackward{.dqkv = dy, .shape = shape, .positions = positions_of(frequencies)});
  expect_close(dy, numeric, bound_of(weights) + 1e-8, "dqkv");
}

}  // namespace
}  // namespace vqlm::testing
