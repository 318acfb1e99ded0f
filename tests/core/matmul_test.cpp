#include <gtest/gtest.h>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

struct Product {
  std::int64_t m, n, k;
  Transpose ta, tb;
  Accumulate accumulate;
};

std::string name(const ::testing::TestParamInfo<Product>& info) {
  const Product& p = info.param;
  return std::to_string(p.m) + "x" + std::to_string(p.n) + "x" + std::to_string(p.k) +
         (p.ta == Transpose::yes ? "_T" : "_N") + (p.tb == Transpose::yes ? "T" : "N") +
         (p.accumulate == Accumulate::yes ? "_add" : "_set");
}

std::vector<Product> products() {
  std::vector<Product> all;
  const std::array<std::int64_t, 3> sizes[] = {{1, 1, 1}, {1, 1000, 65}, {65, 1, 7}, {7, 65, 1000}, {130, 67, 65}};
  for (const auto& [m, n, k] : sizes) {
    for (const Transpose ta : {Transpose::no, Transpose::yes}) {
      for (const Transpose tb : {Transpose::no, Transpose::yes}) {
        for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
          all.push_back({m, n, k, ta, tb, accumulate});
        }
      }
    }
  }
  return all;
}

class MatmulTest : public OpTest, public ::testing::WithParamInterface<Product> {
 protected:
  HostF32 a = random_normal(
      GetParam().ta == Transpose::yes ? Shape{GetParam().k, GetParam().m} : Shape{GetParam().m, GetParam().k}, "a");
  HostF32 b = random_normal(
      GetParam().tb == Transpose::yes ? Shape{GetParam().n, GetParam().k} : Shape{GetParam().k, GetParam().n}, "b");
};

TEST_P(MatmulTest, EqualsReference) {
  const auto [m, n, k, ta, tb, accumulate] = GetParam();
  HostF32 c = accumulate == Accumulate::yes ? random_normal({m, n}, "c") : poisoned({m, n});
  std::vector<double> expected(static_cast<std::size_t>(m * n)), bound(expected.size());
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = accumulate == Accumulate::yes ? c[i * n + j] : 0.0;
      double magnitude = std::abs(sum);
      for (std::int64_t l = 0; l < k; ++l) {
        const double term = static_cast<double>(a[ta == Transpose::yes ? l * m + i : i * k + l]) *
                            static_cast<double>(b[tb == Transpose::yes ? j * k + l : l * n + j]);
        sum += term;
        magnitude += std::abs(term);
      }
      const auto at = static_cast<std::size_t>(i * n + j);
      expected[at] = sum;
      // Any order of a sum of k products and c: at most k + 1 roundings on each term's way (Higham,
      // section 3.1).
      bound[at] = static_cast<double>(k + 1) * u32 * magnitude;
    }
  }
  backend->run(Matmul{.c = c, .a = a, .b = b, .ta = ta, .tb = tb, .accumulate = accumulate});
  expect_close(c, expected, bound, "c");
}

INSTANTIATE_TEST_SUITE_P(Sizes, MatmulTest, ::testing::ValuesIn(products()), name);

class MatmulEdgeTest : public OpTest {};

TEST_F(MatmulEdgeTest, EmptySumIsZeroOrLeavesC) {
  HostF32 a({3, 0}), b({0, 5});
  HostF32 set = poisoned({3, 5});
  backend->run(Matmul{.c = set, .a = a, .b = b, .accumulate = Accumulate::no});
  expect_close(set, std::vector<double>(15, 0.0), 0.0, "c");
  HostF32 kept({3, 5}, 2.0f);
  backend->run(Matmul{.c = kept, .a = a, .b = b, .accumulate = Accumulate::yes});
  expect_close(kept, std::vector<double>(15, 2.0), 0.0, "c");
}

TEST_F(MatmulEdgeTest, EmptyResultIsAllowed) {
  HostF32 rows_a({0, 4}), b({4, 5}), rows_c({0, 5});
  backend->run(Matmul{.c = rows_c, .a = rows_a, .b = b, .accumulate = Accumulate::no});
  HostF32 a({3, 4}), columns_b({4, 0}), columns_c({3, 0});
  backend->run(Matmul{.c = columns_c, .a = a, .b = columns_b, .accumulate = Accumulate::yes});
}

TEST_F(MatmulEdgeTest, IntegersAreExact) {
  // |sum| <= 300 * 64 < 2^24: exact in every order.
  HostF32 a = random_integers({50, 300}, "a", -8, 8), b = random_integers({300, 40}, "b", -8, 8);
  HostF32 c = poisoned({50, 40});
  backend->run(Matmul{.c = c, .a = a, .b = b, .accumulate = Accumulate::no});
  std::vector<double> expected;
  for (std::int64_t i = 0; i < 50; ++i) {
    for (std::int64_t j = 0; j < 40; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < 300; ++l) sum += static_cast<double>(a[i * 300 + l] * b[l * 40 + j]);
      expected.push_back(sum);
    }
  }
  expect_close(c, expected, 0.0, "c");
}

using MatmulDeathTest = MatmulEdgeTest;

TEST_F(MatmulDeathTest, ShapesThatDoNotFitAreRefused) {
  HostF32 a({3, 4}), b({5, 6}), c({3, 6});
  EXPECT_DEATH(backend->run(Matmul{.c = c, .a = a, .b = b, .accumulate = Accumulate::no}), "internal error");
}

}  // namespace
}  // namespace vqlm::testing
