#include "core/tensor.h"

namespace vqlm {

std::string Shape::str() const {
  std::string text = "(";
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(extents_[static_cast<std::size_t>(axis)]);
  }
  return text + ")";
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t count) const {
  VQLM_ASSERT(rank() >= 1 && begin >= 0 && count >= 0 && begin + count <= extent(0));
  Shape shape = shape_;
  shape.set(0, count);
  const std::int64_t row = extent(0) == 0 ? 0 : numel() / extent(0);
  return Tensor(static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin * row) * size_of(dtype_), dtype_,
                shape);
}

Tensor Tensor::range(std::int64_t begin, std::int64_t count) const {
  VQLM_ASSERT(begin >= 0 && count >= 0 && begin + count <= numel());
  return Tensor(static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin) * size_of(dtype_), dtype_, {count});
}

}  // namespace vqlm
