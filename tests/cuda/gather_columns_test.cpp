// Columns of a table's rows in another order on the device, and the gradient back, against the CPU's on the same numbers.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaGatherColumnsTest : public CudaOpTest {
 protected:
  struct Size {
    std::int64_t rows, table_rows, width, stride, columns;
  };
  // Packs and single elements, columns behind the last one asked for, rows of several blocks and of part of a warp.
  const std::vector<Size> sizes{{1, 1, 1, 1, 1},        {7, 7, 13, 1, 13},       {9, 12, 16, 1, 24},
                                {5, 9, 16, 1, 20},      {40, 50, 9, 4, 33},      {33, 33, 5, 3, 14},
                                {100, 101, 67, 2, 133}, {20, 30, 2064, 1, 2064}, {0, 4, 3, 1, 3}};

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

TEST_F(CudaGatherColumnsTest, GathersScaledColumnsRoundedOnce) {
  for (const Size& size : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 table = random_bf16({size.table_rows, size.columns}, "table"),
              expected({size.rows, size.width});
      HostI32 rows = rows_of(size);
      const DeviceArray out = output(expected.shape(), DType::bf16, offset);
      device->gather_columns(out, bf16(table, offset), upload(rows), size.stride, 0.3f);
      oracle->gather_columns(expected, table, rows, size.stride, 0.3f);
      for (std::int64_t i = 0; i < expected.size(); ++i) expected[i] = round_to_bf16(expected[i]);
      expect_equal(out.download(), expected, "out");
    }
  }
}

TEST_F(CudaGatherColumnsTest, ScatterAccumulatesExactlyOnIntegers) {
  for (const Size& size : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 dout = random_integers({size.rows, size.width}, "dout", -50, 50);
      HostF32 expected = random_integers({size.table_rows, size.columns}, "dtable", -50, 50);
      HostI32 rows = rows_of(size);
      const DeviceArray dtable = upload(expected, offset);
      device->scatter_add_columns(dtable, upload(dout, offset), upload(rows), size.stride, 2.0f);
      oracle->scatter_add_columns(expected, dout, rows, size.stride, 2.0f);
      expect_equal(dtable.download(), expected, "dtable");
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
