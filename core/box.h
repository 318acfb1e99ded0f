// Boxes of tensors: how slices of logical tensors are cut, stored and read.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace vqlm {

/// A box of a logical tensor: where it starts and how far it reaches.
struct Box {
  Shape offset;
  Shape extent;
};

/// As many zeros as the shape has axes.
Shape origin_of(const Shape& shape);

/// The offset in a logical tensor of what lies at `offset` in a slice that starts at `by`.
Shape shifted(Shape offset, const Shape& by);

/// The elements [begin, end) of a row-major array of `shape`, in order, as few boxes as that takes
/// (checkpoints store a rank's flat range as boxes of logical tensors).
std::vector<Box> boxes_of_range(const Shape& shape, std::int64_t begin, std::int64_t end);

/// The tensor as boxes of whole rows (of the first axis), in order, each of at most 16 MiB in f32 where a row is not longer:
/// what streams a tensor through a fixed memory.
std::vector<Box> row_boxes(const Shape& shape);

/// The box of a row-major tensor of `shape`, in which it must lie.
std::vector<float> box_of(const std::vector<float>& values, const Shape& shape, const Shape& offset,
                          const Shape& extent);

}  // namespace vqlm
