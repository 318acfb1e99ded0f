// Numbers as files of other programs hold them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "core/error.h"

namespace vqlm {

/// The little-endian number at `offset`, aligned or not; all of it must lie in `bytes`.
template <class T>
T load_little(std::string_view bytes, std::size_t offset) {
  static_assert(std::endian::native == std::endian::little, "a big-endian machine must swap the bytes here");
  VQLM_ASSERT(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace vqlm
