#include <gtest/gtest.h>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

class EmbeddingTest : public OpTest {
 protected:
  struct Size {
    std::int64_t tokens, rows, width;
  };
  const std::vector<Size> sizes{{1, 1, 1}, {7, 3, 65}, {65, 1000, 7}, {1000, 65, 130}, {0, 4, 3}};
};

TEST_F(EmbeddingTest, ForwardCopiesRowsAndZeroesOthers) {
  for (const auto& [tokens, rows, width] : sizes) {
    for (const std::int64_t first_row : {std::int64_t{0}, rows / 2, rows + 5}) {
      // Ids below, in and above this shard's rows.
      HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", 0, 2 * rows);
      HostF32 table = random_normal({rows, width}, "table"), out = poisoned({tokens, width});
      backend->run(EmbeddingForward{.out = out, .ids = ids, .table = table, .first_row = first_row});
      std::vector<double> expected;
      for (std::int64_t n = 0; n < tokens; ++n) {
        const std::int64_t row = ids[n] - first_row;
        const bool inside = row >= 0 && row < rows;
        for (std::int64_t i = 0; i < width; ++i) expected.push_back(inside ? table[row * width + i] : 0.0);
      }
      expect_close(out, expected, 0.0, "out");
    }
  }
}

TEST_F(EmbeddingTest, ForwardAddsRowsToTheBase) {
  for (const auto& [tokens, rows, width] : sizes) {
    HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", -rows, 2 * rows);
    HostF32 table = random_integers({rows, width}, "table", -50, 50), base = random_integers({tokens, width}, "base", -50, 50);
    std::vector<double> expected = base.doubles();
    for (std::int64_t n = 0; n < tokens; ++n) {
      for (std::int64_t i = 0; i < width && ids[n] >= 0 && ids[n] < rows; ++i)
        expected[static_cast<std::size_t>(n * width + i)] += table[ids[n] * width + i];
    }
    HostF32 out = poisoned({tokens, width});
    backend->run(EmbeddingForward{.out = out, .ids = ids, .table = table, .base = base, .first_row = 0});
    expect_close(out, expected, 0.0, "out");
    backend->run(EmbeddingForward{.out = base, .ids = ids, .table = table, .base = base, .first_row = 0});
    expect_close(base, expected, 0.0, "in place");
  }
}

TEST_F(EmbeddingTest, BackwardAccumulatesExactlyOnIntegers) {
  for (const auto& [tokens, rows, width] : sizes) {
    for (const std::int64_t first_row : {std::int64_t{0}, rows / 2}) {
      HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", 0, 2 * rows);
      HostF32 dout = random_integers({tokens, width}, "dout", -50, 50);
      HostF32 dtable = random_integers({rows, width}, "dtable", -50, 50);
      std::vector<double> expected = dtable.doubles();
      for (std::int64_t n = 0; n < tokens; ++n) {
        const std::int64_t row = ids[n] - first_row;
        if (row < 0 || row >= rows) continue;
        for (std::int64_t i = 0; i < width; ++i) {
          expected[static_cast<std::size_t>(row * width + i)] += dout[n * width + i];
        }
      }
      backend->run(EmbeddingBackward{.dtable = dtable, .dout = dout, .ids = ids, .first_row = first_row});
      expect_close(dtable, expected, 0.0, "dtable");
    }
  }
}

// Forward is linear in the table, so its transpose is the gradient: <dout, forward(E)> = <backward(dout), E>.
TEST_F(EmbeddingTest, BackwardEqualsFiniteDifferences) {
  const std::int64_t tokens = 9, rows = 5, width = 3, first_row = 2;
  HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", 0, 8);
  HostF32 dout = random_normal({tokens, width}, "dout"), dtable({rows, width});
  backend->run(EmbeddingBackward{.dtable = dtable, .dout = dout, .ids = ids, .first_row = first_row});
  const auto loss = [&](const std::vector<double>& table) {
    double sum = 0;
    for (std::int64_t n = 0; n < tokens; ++n) {
      const std::int64_t row = ids[n] - first_row;
      for (std::int64_t i = 0; i < width && row >= 0 && row < rows; ++i) {
        sum += table[static_cast<std::size_t>(row * width + i)] * dout[n * width + i];
      }
    }
    return sum;
  };
  const std::vector<double> numeric = numeric_gradient(loss, random_normal({rows, width}, "table").doubles());
  // At most `tokens` terms of size max|dout| in a sum.
  expect_close(dtable, numeric, static_cast<double>(tokens * tokens) * u32 * max_abs(dout.doubles()) + 1e-8, "dtable");
}

TEST_F(EmbeddingTest, BackwardDoesNotDependOnThreads) {
  HostI32 ids = random_integers<std::int32_t>({999}, "ids", 0, 20);
  HostF32 dout = random_normal({999, 66}, "dout"), alone({21, 66}), shared({21, 66});
  make_cpu_backend(1)->run(EmbeddingBackward{.dtable = alone, .dout = dout, .ids = ids, .first_row = 0});
  make_cpu_backend(3)->run(EmbeddingBackward{.dtable = shared, .dout = dout, .ids = ids, .first_row = 0});
  expect_equal(shared, alone, "dtable");
}

}  // namespace
}  // namespace vqlm::testing
