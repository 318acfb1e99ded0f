#include "core/cuda/sort_rows.h"

#include <algorithm>
#include <numeric>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaSortRowsTest : public CudaOpTest {
 protected:
  /// The op against std::stable_sort; -1 counts as the largest key.
  void check(const HostI32& keys, std::int64_t bound) {
    HostI32 expected({keys.size()});
    std::int32_t* const begin = expected.tensor().i32();
    std::iota(begin, begin + keys.size(), 0);
    const auto rank = [&](std::int32_t row) { return keys[row] < 0 ? bound : keys[row]; };
    std::stable_sort(begin, begin + keys.size(), [&](std::int32_t a, std::int32_t b) { return rank(a) < rank(b); });

    const DeviceArray order = output({keys.size()}, DType::i32);
    const auto scratch_bytes = static_cast<std::int64_t>(cuda::sort_rows_scratch_bytes(keys.size()));
    const DeviceArray scratch = output({scratch_bytes}, DType::u8);
    const cuda::Context context{.stream = static_cast<cudaStream_t>(device->compute_stream().handle)};
    cuda::sort_rows(context, order, upload(keys), bound, scratch.tensor().data());
    expect_equal(order.download<std::int32_t>(), expected,
                 "order of " + std::to_string(keys.size()) + " rows below " + std::to_string(bound));
  }
};

TEST_F(CudaSortRowsTest, SortsStablyWithMinusOneLast) {
  // Around a round of a warp, a warp's rows, a tile (2048) and several tiles; one to four digits, and bounds at which a pass
  // is saved because rows without key need no digit of the others'.
  for (const std::int64_t rows : {0, 1, 31, 32, 33, 257, 2047, 2048, 2049, 6500}) {
    for (const std::int64_t bound : {1, 2, 255, 256, 257, 50'257, 65'536, 1 << 24, 2'000'000'000}) {
      check(random_integers<std::int32_t>({rows}, "keys", -1, bound - 1), bound);
    }
  }
}

TEST_F(CudaSortRowsTest, KeepsTheOrderOfEqualKeys) {
  for (const std::int32_t key : {-1, 0, 255, 256, 1000}) check(HostI32({2500}, key), 1001);
  check(HostI32({70}, -1), 0);
}

TEST_F(CudaSortRowsTest, SortsOrderedAndReversedKeys) {
  HostI32 ascending({3000}), descending({3000});
  for (std::int64_t i = 0; i < 3000; ++i) {
    ascending[i] = static_cast<std::int32_t>(i);
    descending[i] = static_cast<std::int32_t>(2999 - i);
  }
  check(ascending, 3000);
  check(descending, 3000);
}

TEST_F(CudaSortRowsTest, SortsMoreTilesThanABlockAddsUp) {
  // 69 tiles, more than whose counts a block of the second kernel adds up by itself, and every digit occurs.
  for (const std::int64_t bound : {256, 1000}) {
    check(random_integers<std::int32_t>({140'000}, "keys", -1, bound - 1), bound);
  }
}

}  // namespace
}  // namespace vqlm::testing
