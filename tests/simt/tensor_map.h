// The executor's tensor map: what cuTensorMapEncodeTiled keeps in the 128 bytes that are opaque on a GPU.
#pragma once

#include <cstdint>

namespace simt {

struct TensorMap {
  std::uint64_t mark = 0;  // tensor_map_mark: the bytes come from the stand-in
  unsigned char* global = nullptr;
  std::uint64_t strides[4] = {};  // bytes; the first dimension's is the element
  std::uint32_t extent[4] = {};
  std::uint32_t box[4] = {};
  std::uint32_t rank = 0;
  std::uint32_t element = 0;  // bytes
  std::uint32_t swizzle = 0;  // 0, or the rows' width in bytes: 32, 64, 128
};
static_assert(sizeof(TensorMap) <= 128);
constexpr std::uint64_t tensor_map_mark = 0x70616d2d726f736e;

/// The permutation of 16-byte chunks within rows of `swizzle` bytes, by the bits of a shared address.
constexpr unsigned swizzled(unsigned address, unsigned swizzle) {
  const unsigned bits = swizzle == 0 ? 0 : swizzle / 16 - 1;
  return address ^ ((address >> 7 & bits) << 4);
}

}  // namespace simt
