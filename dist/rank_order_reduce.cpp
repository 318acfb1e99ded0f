#include "dist/rank_order_reduce.h"

#include <algorithm>
#include <array>

namespace vqlm {
namespace {

// Partial results stay in a tile that fits the first-level cache, so every block is read once and out written
// once; the tile also makes it safe for out to be one of the blocks.
constexpr std::int64_t tile_elements = 1024;

template <class T, class Op>
void reduce_tiles(T* out, const std::vector<const void*>& blocks, std::int64_t n, Op op) {
  std::array<T, tile_elements> tile;
  for (std::int64_t begin = 0; begin < n; begin += tile_elements) {
    const std::int64_t count = std::min(tile_elements, n - begin);
    std::copy_n(static_cast<const T*>(blocks[0]) + begin, count, tile.data());
    for (std::size_t p = 1; p < blocks.size(); ++p) {
      const T* block = static_cast<const T*>(blocks[p]) + begin;
      for (std::int64_t i = 0; i < count; ++i) {
        T& x = tile[static_cast<std::size_t>(i)];
        x = op(x, block[i]);
      }
    }
    std::copy_n(tile.data(), count, out + begin);
  }
}

template <class T>
void reduce_typed(void* out, const std::vector<const void*>& blocks, std::int64_t n, Reduce op) {
  switch (op) {
    case Reduce::sum:
      return reduce_tiles(static_cast<T*>(out), blocks, n, [](T a, T b) { return a + b; });
    case Reduce::max:
      // A NaN wins on either side: a maximum that hides one would let a broken run go on.
      return reduce_tiles(static_cast<T*>(out), blocks, n, [](T a, T b) { return (a >= b || a != a) ? a : b; });
  }
}

}  // namespace

void reduce_in_rank_order(void* out, const std::vector<const void*>& blocks, std::int64_t n, DType dtype, Reduce op) {
  VQLM_ASSERT(!blocks.empty() && n >= 0);
  switch (dtype) {
    case DType::f32:
      return reduce_typed<float>(out, blocks, n, op);
    case DType::f64:
      return reduce_typed<double>(out, blocks, n, op);
    case DType::i32:
      return reduce_typed<std::int32_t>(out, blocks, n, op);
    case DType::bf16:
    case DType::u8:
      break;
  }
  VQLM_ASSERT(!"reductions take f32, f64 and i32");
}

}  // namespace vqlm
