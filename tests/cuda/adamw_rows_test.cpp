// AdamW for some rows of a table on the device: these as by AdamW on their own, to the bit, and nothing else changes.
#include <gtest/gtest.h>

#include "tests/core/scattered_rows.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

// Packs and single elements, rows of several blocks and of part of a warp.
const std::vector<ScatteredRows> sizes{{1, 1, 1},      {7, 7, 13},     {9, 12, 16}, {33, 33, 5},
                                       {100, 101, 67}, {20, 30, 1040}, {0, 4, 3}};
constexpr AdamWStep step{.lr = 0.01f, .weight_decay = 0.1f, .step = 7, .max_norm = 1.5f};

TEST_F(CudaOpTest, AdamWRowsEqualsAdamWOfTheRows) {
  for (const ScatteredRows& size : sizes) {
    HostF32 param = random_normal({size.table_rows, size.width}, "param"),
            m = random_normal({size.table_rows, size.width}, "m");
    HostF32 v = random_normal({size.table_rows, size.width}, "v"),
            grad = random_normal({size.count, size.width}, "grad");
    for (std::int64_t i = 0; i < v.size(); ++i) v[i] *= v[i];
    HostI32 rows = size.rows();
    HostF64 norm({1}, 5.0);
    const DeviceArray by_rows[] = {upload(param), upload(m), upload(v)},
                      alone[] = {upload(param), upload(m), upload(v)};
    const DeviceArray rounded = output({size.table_rows, size.width}, DType::bf16);
    const DeviceArray grads = upload(grad), device_norm = upload(norm);
    device->run(AdamWRows{.param = by_rows[0],
                          .rounded = rounded,
                          .m = by_rows[1],
                          .v = by_rows[2],
                          .grad = grads,
                          .rows = upload(rows),
                          .norm_squared = device_norm,
                          .step = step});
    for (std::int64_t i = 0; i < size.count; ++i) {
      const auto row = [&](const DeviceArray& x, std::int64_t of) { return x.tensor().rows(of, 1); };
      device->run(AdamW{.param = row(alone[0], rows[i]),
                        .m = row(alone[1], rows[i]),
                        .v = row(alone[2], rows[i]),
                        .grad = row(grads, i),
                        .norm_squared = device_norm,
                        .step = step});
    }
    const HostF32 updated = by_rows[0].download(), copy = rounded.download();
    expect_equal(updated, alone[0].download(), "param");
    expect_equal(by_rows[1].download(), alone[1].download(), "m");
    expect_equal(by_rows[2].download(), alone[2].download(), "v");
    for (std::int64_t i = 0; i < size.count; ++i) {
      for (std::int64_t c = 0; c < size.width; ++c) {
        const std::int64_t at = rows[i] * size.width + c;
        ASSERT_EQ(copy[at], round_to_bf16(updated[at])) << at;
      }
    }
  }
}

TEST_F(CudaOpTest, CopyRowsReplacesRowsAndPassesOverNone) {
  for (const ScatteredRows& size : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 expected = random_bf16({size.table_rows, size.width}, "table"),
              from = random_bf16({size.count, size.width}, "from");
      HostI32 rows = size.rows();
      if (size.count > 2) rows[2] = -1;
      const DeviceArray table = bf16(expected, offset);
      device->run(CopyRows{.table = table, .from = bf16(from, offset), .rows = upload(rows)});
      oracle->run(CopyRows{.table = expected, .from = from, .rows = rows});
      expect_equal(table.download(), expected, "table");
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
