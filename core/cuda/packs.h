// Packs: several neighbouring elements that a thread reads or writes at once, up to 16 bytes a load. Kernels are templates on
// the pack's width; launchers choose the wide one where shapes and addresses allow, and width 1 else.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "core/cuda/context.h"
#include "core/cuda/device_utils.h"
#include "core/tensor.h"

namespace vqlm::cuda {

/// Typed pointer to a bf16 tensor; null for an absent one.
inline __nv_bfloat16* bf16(const Tensor& x) {
  VQLM_ASSERT(!x || x.dtype() == DType::bf16);
  return static_cast<__nv_bfloat16*>(x.data());
}

/// `width` elements that move as one; aligned to their size, at most 16 bytes.
template <class T, int width>
struct alignas(std::min<std::size_t>(16, sizeof(T) * width)) Pack {
  T at[width];
};

/// Reads `width` elements as floats.
template <int width, class T>
__device__ __forceinline__ void load_pack(float (&x)[width], const T* source) {
  const auto pack = *reinterpret_cast<const Pack<T, width>*>(source);
#pragma unroll
  for (int i = 0; i < width; ++i) x[i] = to_float(pack.at[i]);
}

/// Writes `width` floats, rounded to nearest even where T is bf16.
template <int width, class T>
__device__ __forceinline__ void store_pack(T* target, const float (&x)[width]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16> && width == 8) {
    store8(target, x);  // converts pairs, in half the instructions
  } else {
    Pack<T, width> pack;
#pragma unroll
    for (int i = 0; i < width; ++i) pack.at[i] = from_float<T>(x[i]);
    *reinterpret_cast<Pack<T, width>*>(target) = pack;
  }
}

/// True where every row of `columns` elements, in each of the arrays, begins at a multiple of `width` elements that are a
/// pack's alignment apart: rows can then be read in packs. Null pointers stand for absent arrays.
template <int width, class... T>
bool rows_in_packs(std::int64_t columns, const T*... data) {
  return columns % width == 0 && ((reinterpret_cast<std::uintptr_t>(data) % alignof(Pack<T, width>) == 0) && ...);
}

/// Threads of a block over rows of packs: x runs along a row, y over rows, so that short rows share a block.
struct RowBlocks {
  dim3 grid;
  dim3 block;
};
inline RowBlocks row_blocks(std::int64_t rows, std::int64_t packs) {
  constexpr std::int64_t threads = 256;
  const auto width = static_cast<std::uint64_t>(std::max<std::int64_t>(packs, 1));
  const std::int64_t x = packs <= warp_size ? static_cast<std::int64_t>(std::bit_ceil(width))
                                            : std::min(threads, ceil_div<std::int64_t>(packs, warp_size) * warp_size);
  const std::int64_t y = threads / x;
  return {dim3(static_cast<unsigned>(ceil_div(rows, y))), dim3(static_cast<unsigned>(x), static_cast<unsigned>(y))};
}

/// The row of a thread in a launch by row_blocks.
__device__ __forceinline__ std::int64_t row_of_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}

/// Elements in front of the first place where all arrays are aligned for packs; n where there is none, so that everything
/// is done one by one. Ranges of one flat buffer and of its copies share their alignment.
template <int width, class... T>
std::int64_t elements_before_packs(std::int64_t n, const T*... data) {
  for (std::int64_t head = 0; head < std::min<std::int64_t>(n, width); ++head) {
    if (((reinterpret_cast<std::uintptr_t>(data + head) % alignof(Pack<T, width>) == 0) && ...)) return head;
  }
  return n;
}

/// Blocks of 256 threads for for_each_pack over n elements: at most eight for each multiprocessor (2048 threads, all that
/// run at once), so that what a thread computes once serves many packs.
template <int width>
dim3 flat_blocks(const Context& context, std::int64_t n) {
  const std::int64_t most = std::int64_t{8} * std::max(context.multiprocessors, 1);
  return dim3(static_cast<unsigned>(std::clamp<std::int64_t>(ceil_div<std::int64_t>(n, 256 * width), 1, most)));
}

/// Says a pack's width by its type, so that a generic lambda can have arrays of that size.
template <int width>
struct PackWidth {
  static constexpr int value = width;
};

/// Covers [0, n) with the whole grid: body(PackWidth<width>, begin) for packs from `head` on, body(PackWidth<1>, i) for the
/// elements before and after them. `head` is elements_before_packs of the arrays.
template <int width, class Body>
__device__ __forceinline__ void for_each_pack(std::int64_t n, std::int64_t head, Body body) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const std::int64_t packs = (n - head) / width;
  for (std::int64_t p = thread; p < packs; p += threads) body(PackWidth<width>{}, head + p * width);
  const std::int64_t singles = n - packs * width;
  for (std::int64_t i = thread; i < singles; i += threads) {
    body(PackWidth<1>{}, i < head ? i : packs * width + i);
  }
}

}  // namespace vqlm::cuda
