#include "train/codes/token_vectors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace vqlm {
namespace {

TEST(TokenVectors, ChiSquareVectorsHaveChiSquareDistances) {
  // Full rank: distances between rows are those of the table's profiles, weighed by 1 / column sums.
  const SparseRows n{
      .columns = 3, .row_begin = {0, 2, 5, 6}, .column = {0, 1, 0, 1, 2, 2}, .value = {8, 2, 1, 3, 4, 6}};
  const std::vector<std::vector<double>> rows{{8, 2, 0}, {1, 3, 4}, {0, 0, 6}};
  const std::vector<double> sums{10, 8, 6}, columns{9, 5, 10};
  const std::vector<float> x = chi_square_vectors(n, 3, 1);
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      double expected = 0, found = 0;
      for (std::size_t c = 0; c < 3; ++c) {
        const double profile = rows[a][c] / sums[a] - rows[b][c] / sums[b];
        expected += profile * profile / columns[c];
        const double apart = static_cast<double>(x[3 * a + c]) - static_cast<double>(x[3 * b + c]);
        found += apart * apart;
      }
      EXPECT_NEAR(found, expected,
                  100 * 0x1p-24);  // float products of orthonormal bases of three: some ten roundings
    }
  }
}

TEST(TokenVectors, PositivePmiFollowsItsFormula) {
  // Two rows, one part of two columns: n = [[8, 1], [8, 0]]; context weights 16^0.75 = 8 and 1^0.75 = 1, over 9.
  SparseRows n{.columns = 2, .row_begin = {0, 2, 3}, .column = {0, 1, 0}, .value = {8, 1, 8}};
  to_positive_pmi(n, 1);
  EXPECT_FLOAT_EQ(n.value[0], std::max(0.0f, std::log(8.0f / (9 * 8.0f / 9))));
  EXPECT_FLOAT_EQ(n.value[1], std::max(0.0f, std::log(1.0f / (9 * 1.0f / 9))));
  EXPECT_FLOAT_EQ(n.value[2], std::log(8.0f / (8 * 8.0f / 9)));
}

TEST(TokenVectors, TruncatedSvdGivesTheScaledLeftVectors) {
  // A = diag(9, 4, 1) in a 5 x 4 matrix with rows turned about: X X^T = U S U^T has the diagonal (9, 4, 1) there.
  const SparseRows a{.columns = 4, .row_begin = {0, 0, 1, 2, 2, 3}, .column = {2, 0, 3}, .value = {4, 9, 1}};
  const std::vector<float> x = truncated_svd(a, 2, 1);  // (5, 2)
  const auto product = [&](std::size_t i, std::size_t j) { return x[2 * i] * x[2 * j] + x[2 * i + 1] * x[2 * j + 1]; };
  // Float products of orthonormal bases a few wide: some ten roundings of values up to 9.
  const float bound = 9 * 20 * 0x1p-24f;
  const std::vector<float> diagonal{0, 4, 9, 0, 0};  // the third singular value is cut off
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t j = 0; j < 5; ++j) EXPECT_NEAR(product(i, j), i == j ? diagonal[i] : 0.0f, bound) << i << j;
  }
  // More dimensions than the rank: the rest is zero.
  const std::vector<float> wide = truncated_svd(a, 8, 1);
  double energy = 0;
  for (const float value : wide) energy += static_cast<double>(value * value);
  EXPECT_NEAR(energy, 14, 5 * bound);
}

}  // namespace
}  // namespace vqlm
