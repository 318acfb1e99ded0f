// Every stride-th column of a table's rows in another order, and the gradient back.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

class GatherColumnsTest : public OpTest {
 protected:
  struct Size {
    std::int64_t rows, table_rows, width, stride, columns;
  };
  // Widths off every vector, columns behind the last one that is asked for, fewer rows than the table has, several blocks.
  const std::vector<Size> sizes{{1, 1, 1, 1, 1},         {7, 7, 13, 1, 13},  {5, 9, 17, 1, 20},
                                {40, 50, 9, 4, 33},      {33, 33, 5, 3, 14}, {300, 310, 67, 2, 133},
                                {260, 300, 130, 1, 130}, {0, 4, 3, 1, 3}};

  /// `count` different rows of the table, shuffled.
  static HostI32 rows_of(const Size& size) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(size.table_rows));
    std::iota(all.begin(), all.end(), 0);
    const Philox rng(5, "rows");
    for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[rng.below(i, i)]);
    HostI32 rows({size.rows});
    std::copy_n(all.begin(), size.rows, rows.tensor().i32());
    return rows;
  }
};

TEST_F(GatherColumnsTest, GathersScaledColumns) {
  for (const Size& size : sizes) {
    HostF32 table = random_normal({size.table_rows, size.columns}, "table");
    HostF32 out = poisoned({size.rows, size.width});
    HostI32 rows = rows_of(size);
    backend->gather_columns(out, table, rows, size.stride, 0.3f);
    std::vector<double> expected, bound;
    for (std::int64_t i = 0; i < size.rows; ++i) {
      for (std::int64_t j = 0; j < size.width; ++j) {
        expected.push_back(double{0.3f} * table[rows[i] * size.columns + j * size.stride]);
        bound.push_back(u32 * std::abs(expected.back()));  // one product
      }
    }
    expect_close(out, expected, bound, "out");
  }
}

TEST_F(GatherColumnsTest, ScatterAccumulatesExactlyOnIntegers) {
  for (const Size& size : sizes) {
    HostF32 dout = random_integers({size.rows, size.width}, "dout", -50, 50);
    HostF32 dtable = random_integers({size.table_rows, size.columns}, "dtable", -50, 50);
    HostI32 rows = rows_of(size);
    std::vector<double> expected = dtable.doubles();
    for (std::int64_t i = 0; i < size.rows; ++i) {
      for (std::int64_t j = 0; j < size.width; ++j) {
        expected[static_cast<std::size_t>(rows[i] * size.columns + j * size.stride)] +=
            2.0 * dout[i * size.width + j];
      }
    }
    backend->scatter_add_columns(dtable, dout, rows, size.stride, 2.0f);
    expect_close(dtable, expected, 0.0, "dtable");
  }
}

/// Gathering is linear in the table, so its transpose is the gradient: <dout, gather(E)> = <scatter(dout), E>.
TEST_F(GatherColumnsTest, ScatterEqualsFiniteDifferences) {
  const Size size{6, 8, 5, 3, 14};
  HostF32 dout = random_normal({size.rows, size.width}, "dout"), dtable({size.table_rows, size.columns});
  HostI32 rows = rows_of(size);
  backend->scatter_add_columns(dtable, dout, rows, size.stride, 0.5f);
  const auto loss = [&](const std::vector<double>& table) {
    double sum = 0;
    for (std::int64_t i = 0; i < size.rows; ++i) {
      for (std::int64_t j = 0; j < size.width; ++j) {
        sum += 0.5 * dout[i * size.width + j] *
               table[static_cast<std::size_t>(rows[i] * size.columns + j * size.stride)];
      }
    }
    return sum;
  };
  HostF32 table = random_normal(dtable.shape(), "table");
  expect_close(dtable, numeric_gradient(loss, table.doubles()), 1e-7, "dtable");
}

TEST_F(GatherColumnsTest, SameForAnyNumberOfThreads) {
  const Size size{2000, 2100, 67, 2, 133};
  HostF32 table = random_normal({size.table_rows, size.columns}, "table");
  HostI32 rows = rows_of(size);
  const auto run = [&](int threads) {
    const auto threaded = make_cpu_backend(threads);
    HostF32 out({size.rows, size.width}), dtable = random_normal(table.shape(), "dtable");
    threaded->gather_columns(out, table, rows, size.stride, 0.3f);
    threaded->scatter_add_columns(dtable, out, rows, size.stride, 0.7f);
    return std::pair(std::move(out), std::move(dtable));
  };
  const auto one = run(1), three = run(3);
  expect_equal(one.first, three.first, "out");
  expect_equal(one.second, three.second, "dtable");
}

}  // namespace
}  // namespace vqlm::testing
