// Rows added to those of a table in another order on the device, against the CPU's on the same numbers.
#include <gtest/gtest.h>

#include "tests/core/scattered_rows.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaScatterAddRowsTest : public CudaOpTest {
 protected:
  // Packs and single elements, rows of several blocks and of part of a warp.
  const std::vector<ScatteredRows> sizes{{1, 1, 1},   {7, 7, 13},     {9, 12, 16},    {5, 9, 20},
                                         {33, 33, 5}, {100, 101, 67}, {20, 30, 2064}, {0, 4, 3}};
};

TEST_F(CudaScatterAddRowsTest, AccumulatesExactlyOnIntegers) {
  for (const ScatteredRows& size : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 dout = random_integers({size.count, size.width}, "dout", -50, 50);
      HostF32 expected = random_integers({size.table_rows, size.width}, "dtable", -50, 50);
      HostI32 rows = size.rows();
      const DeviceArray dtable = upload(expected, offset);
      device->run(ScatterAddRows{.dtable = dtable, .dout = upload(dout, offset), .rows = upload(rows)});
      oracle->run(ScatterAddRows{.dtable = expected, .dout = dout, .rows = rows});
      expect_equal(dtable.download(), expected, "dtable");
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
