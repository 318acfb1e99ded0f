// Rows added to those of a table in another order.
#include <gtest/gtest.h>

#include "tests/core/scattered_rows.h"

namespace vqlm::testing {
namespace {

class ScatterAddRowsTest : public OpTest {
 protected:
  // Widths off every vector, fewer rows than the table has, several blocks, none.
  const std::vector<ScatteredRows> sizes{{1, 1, 1},   {7, 7, 13},     {5, 9, 17},      {40, 50, 9},
                                         {33, 33, 5}, {300, 310, 67}, {260, 300, 130}, {0, 4, 3}};
};

TEST_F(ScatterAddRowsTest, AccumulatesExactlyOnIntegers) {
  for (const ScatteredRows& size : sizes) {
    HostF32 dout = random_integers({size.count, size.width}, "dout", -50, 50);
    HostF32 dtable = random_integers({size.table_rows, size.width}, "dtable", -50, 50);
    HostI32 rows = size.rows();
    std::vector<double> expected = dtable.doubles();
    for (std::int64_t i = 0; i < dout.size(); ++i) {
      expected[static_cast<std::size_t>(rows[i / size.width] * size.width + i % size.width)] += dout[i];
    }
    backend->run(ScatterAddRows{.dtable = dtable, .dout = dout, .rows = rows});
    expect_close(dtable, expected, 0.0, "dtable");
  }
}

TEST_F(ScatterAddRowsTest, SameForAnyNumberOfThreads) {
  const ScatteredRows size{2000, 2100, 67};
  HostF32 dout = random_normal({size.count, size.width}, "dout");
  HostI32 rows = size.rows();
  const auto run = [&](int threads) {
    HostF32 dtable = random_normal({size.table_rows, size.width}, "dtable");
    make_cpu_backend(threads)->run(ScatterAddRows{.dtable = dtable, .dout = dout, .rows = rows});
    return dtable;
  };
  expect_equal(run(1), run(3), "dtable");
}

}  // namespace
}  // namespace vqlm::testing
