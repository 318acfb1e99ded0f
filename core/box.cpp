#include "core/box.h"

#include <algorithm>

namespace vqlm {
namespace {

constexpr std::int64_t row_box_elements = std::int64_t{4} << 20;

/// Boxes of [begin, end) in the sub-array below `axis`, whose leading coordinates stand in `prefix`.
void append_boxes(const Shape& shape, int axis, Shape prefix, std::int64_t begin, std::int64_t end,
                  std::vector<Box>& boxes) {
  if (begin >= end) return;
  std::int64_t inner = 1;
  for (int a = axis + 1; a < shape.rank(); ++a) inner *= shape[a];
  const std::int64_t first = begin / inner;
  const std::int64_t last = (end - 1) / inner;
  const bool whole_first = begin == first * inner;
  const bool whole_last = end == (last + 1) * inner;
  if (first == last && !(whole_first && whole_last)) {
    prefix.set(axis, first);
    append_boxes(shape, axis + 1, prefix, begin - first * inner, end - first * inner, boxes);
    return;
  }
  const std::int64_t full_begin = whole_first ? first : first + 1;
  const std::int64_t full_end = whole_last ? last + 1 : last;
  if (!whole_first) {
    prefix.set(axis, first);
    append_boxes(shape, axis + 1, prefix, begin - first * inner, inner, boxes);
  }
  if (full_begin < full_end) {
    Box box;
    box.offset = prefix;
    box.extent = shape;
    for (int a = 0; a < axis; ++a) box.extent.set(a, 1);
    box.offset.set(axis, full_begin);
    box.extent.set(axis, full_end - full_begin);
    for (int a = axis + 1; a < shape.rank(); ++a) box.offset.set(a, 0);
    boxes.push_back(box);
  }
  if (!whole_last) {
    prefix.set(axis, last);
    append_boxes(shape, axis + 1, prefix, 0, end - last * inner, boxes);
  }
}

}  // namespace

std::vector<Box> boxes_of_range(const Shape& shape, std::int64_t begin, std::int64_t end) {
  VQLM_ASSERT(shape.rank() >= 1 && begin >= 0 && end <= shape.numel());
  std::vector<Box> boxes;
  append_boxes(shape, 0, shape, begin, end, boxes);
  return boxes;
}

std::vector<Box> row_boxes(const Shape& shape) {
  const std::int64_t rows = shape[0];
  const std::int64_t row = rows > 0 ? shape.numel() / rows : 1;
  const std::int64_t at_once = std::max<std::int64_t>(1, row_box_elements / std::max<std::int64_t>(row, 1));
  std::vector<Box> boxes;
  for (std::int64_t begin = 0; begin < rows; begin += at_once) {
    Box box{.offset = origin_of(shape), .extent = shape};
    box.offset.set(0, begin);
    box.extent.set(0, std::min(at_once, rows - begin));
    boxes.push_back(box);
  }
  return boxes;
}

Shape origin_of(const Shape& shape) {
  Shape origin = shape;
  for (int axis = 0; axis < shape.rank(); ++axis) origin.set(axis, 0);
  return origin;
}

Shape shifted(Shape offset, const Shape& by) {
  VQLM_ASSERT(offset.rank() == by.rank());
  for (int axis = 0; axis < offset.rank(); ++axis) offset.set(axis, offset[axis] + by[axis]);
  return offset;
}

std::vector<float> box_of(const std::vector<float>& values, const Shape& shape, const Shape& offset,
                          const Shape& extent) {
  VQLM_ASSERT(shape.rank() == offset.rank() && shape.rank() == extent.rank());
  std::vector<float> box;
  box.reserve(static_cast<std::size_t>(extent.numel()));
  // Runs along the last axis, at every place of the axes before it.
  const int last = shape.rank() - 1;
  const std::int64_t runs = extent[last] == 0 ? 0 : extent.numel() / extent[last];
  for (std::int64_t run = 0; run < runs; ++run) {
    std::int64_t begin = offset[last];
    std::int64_t stride = shape[last];
    std::int64_t left = run;
    for (int axis = last - 1; axis >= 0; --axis) {
      begin += (offset[axis] + left % extent[axis]) * stride;
      left /= extent[axis];
      stride *= shape[axis];
    }
    const auto first = values.begin() + begin;
    box.insert(box.end(), first, first + extent[last]);
  }
  return box;
}

}  // namespace vqlm
