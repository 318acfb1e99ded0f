// AdamW for some rows of a table: these as by AdamW on their own, to the bit, and nothing else changes.
#include <gtest/gtest.h>

#include <limits>

#include "tests/core/scattered_rows.h"

namespace vqlm::testing {
namespace {

struct TableState {
  HostF32 param, m, v;
};

TableState random_table(std::int64_t rows, std::int64_t width) {
  TableState state{random_normal({rows, width}, "param"), random_normal({rows, width}, "m", 0.1f),
                   random_normal({rows, width}, "v", 0.1f)};
  for (std::int64_t i = 0; i < state.v.size(); ++i) state.v[i] *= state.v[i];
  return state;
}

const std::vector<ScatteredRows> sizes{{1, 1, 1}, {7, 7, 13}, {5, 9, 16}, {300, 310, 67}, {0, 4, 3}};
constexpr AdamWStep step{.lr = 0.01f, .weight_decay = 0.1f, .step = 7, .max_norm = 1.5f};

TEST_F(OpTest, AdamWRowsEqualsAdamWOfTheRows) {
  for (const ScatteredRows& size : sizes) {
    TableState state = random_table(size.table_rows, size.width), expected = random_table(size.table_rows, size.width);
    HostF32 grad = random_normal({size.count, size.width}, "grad");
    HostI32 rows = size.rows();
    HostF64 norm({1}, 5.0);
    backend->run(AdamWRows{.param = state.param,
                           .m = state.m,
                           .v = state.v,
                           .grad = grad,
                           .rows = rows,
                           .norm_squared = norm,
                           .step = step});
    for (std::int64_t i = 0; i < size.count; ++i) {
      const auto row = [&](HostF32& x, std::int64_t of) { return x.tensor().rows(of, 1); };
      backend->run(AdamW{.param = row(expected.param, rows[i]),
                         .m = row(expected.m, rows[i]),
                         .v = row(expected.v, rows[i]),
                         .grad = row(grad, i),
                         .norm_squared = norm,
                         .step = step});
    }
    expect_equal(state.param, expected.param, "param");
    expect_equal(state.m, expected.m, "m");
    expect_equal(state.v, expected.v, "v");
  }
}

TEST_F(OpTest, AdamWRowsSkipsAStepWhoseNormIsNotFinite) {
  TableState state = random_table(4, 5), before = random_table(4, 5);
  HostF32 grad = random_normal({2, 5}, "grad");
  HostI32 rows({2});
  rows[0] = 3;
  rows[1] = 0;
  HostF64 norm({1}, std::numeric_limits<double>::infinity());
  backend->run(AdamWRows{.param = state.param,
                         .m = state.m,
                         .v = state.v,
                         .grad = grad,
                         .rows = rows,
                         .norm_squared = norm,
                         .step = step});
  expect_equal(state.param, before.param, "param");
  expect_equal(state.m, before.m, "m");
}

TEST_F(OpTest, CopyRowsReplacesRowsAndPassesOverNone) {
  for (const ScatteredRows& size : sizes) {
    HostF32 table = random_normal({size.table_rows, size.width}, "table"),
            from = random_normal({size.count, size.width}, "from");
    HostI32 rows = size.rows();
    if (size.count > 2) rows[2] = -1;
    std::vector<double> expected = table.doubles();
    for (std::int64_t i = 0; i < from.size(); ++i) {
      const std::int64_t row = rows[i / size.width];
      if (row >= 0) expected[static_cast<std::size_t>(row * size.width + i % size.width)] = from[i];
    }
    backend->run(CopyRows{.table = table, .from = from, .rows = rows});
    expect_close(table, expected, 0.0, "table");
  }
}

}  // namespace
}  // namespace vqlm::testing
