// boxes_of_range() against the definition: a range is a box where its bounding box holds nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/box.h"
#include "core/rng.h"

namespace vqlm {
namespace {

using Index = std::vector<std::int64_t>;

/// The index of flat element `flat` of a row-major array.
Index index_of(const Shape& shape, std::int64_t flat) {
  Index index(static_cast<std::size_t>(shape.rank()));
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    index[static_cast<std::size_t>(axis)] = flat % shape[axis];
    flat /= shape[axis];
  }
  return index;
}

std::int64_t flat_of(const Shape& shape, const Index& index) {
  std::int64_t flat = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) flat = flat * shape[axis] + index[static_cast<std::size_t>(axis)];
  return flat;
}

/// The flat elements of the boxes, box by box, each row-major: how checkpoints store them.
std::vector<std::int64_t> elements(const Shape& shape, const std::vector<Box>& boxes) {
  std::vector<std::int64_t> all;
  for (const Box& box : boxes) {
    for (std::int64_t i = 0; i < box.extent.numel(); ++i) {
      Index index = index_of(box.extent, i);
      for (int axis = 0; axis < shape.rank(); ++axis) index[static_cast<std::size_t>(axis)] += box.offset[axis];
      all.push_back(flat_of(shape, index));
    }
  }
  return all;
}

/// Elements of the smallest box around [begin, end).
std::int64_t bounding_box(const Shape& shape, std::int64_t begin, std::int64_t end) {
  Index low = index_of(shape, begin);
  Index high = low;
  for (std::int64_t flat = begin; flat < end; ++flat) {
    const Index index = index_of(shape, flat);
    for (std::size_t axis = 0; axis < index.size(); ++axis) {
      low[axis] = std::min(low[axis], index[axis]);
      high[axis] = std::max(high[axis], index[axis]);
    }
  }
  std::int64_t size = 1;
  for (std::size_t axis = 0; axis < low.size(); ++axis) size *= high[axis] - low[axis] + 1;
  return size;
}

/// The fewest boxes that [begin, end) can be cut into, by trying every cut.
std::size_t fewest_boxes(const Shape& shape, std::int64_t begin, std::int64_t end) {
  std::vector<std::size_t> fewest(static_cast<std::size_t>(end - begin) + 1, 0);  // of [begin, begin + i)
  for (std::int64_t stop = begin + 1; stop <= end; ++stop) {
    const auto at = static_cast<std::size_t>(stop - begin);
    fewest[at] = at;  // element by element
    for (std::int64_t start = begin; start < stop; ++start) {
      if (bounding_box(shape, start, stop) != stop - start) continue;
      fewest[at] = std::min(fewest[at], fewest[static_cast<std::size_t>(start - begin)] + 1);
    }
  }
  return fewest.back();
}

void expect_covered(const Shape& shape, std::int64_t begin, std::int64_t end) {
  const std::vector<Box> boxes = boxes_of_range(shape, begin, end);
  std::vector<std::int64_t> expected(static_cast<std::size_t>(end - begin));
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = begin + static_cast<std::int64_t>(i);
  EXPECT_EQ(elements(shape, boxes), expected) << shape.str() << " [" << begin << ", " << end << ")";
}

TEST(BoxesOfRange, EveryRangeOfSmallShapesInTheFewestBoxes) {
  for (const Shape& shape : {Shape{1}, Shape{9}, Shape{1, 7}, Shape{7, 1}, Shape{4, 5}, Shape{3, 1, 4}, Shape{1, 3, 4},
                             Shape{2, 3, 4}, Shape{3, 4, 1}, Shape{2, 2, 2, 2}}) {
    for (std::int64_t begin = 0; begin < shape.numel(); ++begin) {
      for (std::int64_t end = begin + 1; end <= shape.numel(); ++end) {
        expect_covered(shape, begin, end);
        EXPECT_EQ(boxes_of_range(shape, begin, end).size(), fewest_boxes(shape, begin, end))
            << shape.str() << " [" << begin << ", " << end << ")";
      }
    }
  }
}

TEST(BoxesOfRange, RandomRangesOfRandomShapes) {
  const Philox rng(11, "boxes");
  std::uint64_t drawn = 0;
  for (int i = 0; i < 600; ++i) {
    const int rank = 1 + i % 3;
    Shape shape = rank == 1 ? Shape{1} : rank == 2 ? Shape{1, 1} : Shape{1, 1, 1};
    for (int axis = 0; axis < rank; ++axis) shape.set(axis, 1 + static_cast<std::int64_t>(rng.below(drawn++, 23)));
    const auto size = static_cast<std::uint64_t>(shape.numel());
    const auto begin = static_cast<std::int64_t>(rng.below(drawn++, size));
    const auto end =
        begin + 1 + static_cast<std::int64_t>(rng.below(drawn++, size - static_cast<std::uint64_t>(begin)));
    expect_covered(shape, begin, end);
    // A ragged start and a ragged end on every axis but the last, and what lies between.
    EXPECT_LE(boxes_of_range(shape, begin, end).size(), static_cast<std::size_t>(2 * rank - 1));
  }
}

TEST(BoxesOfRange, AnEmptyRangeHasNoBoxes) {
  EXPECT_TRUE(boxes_of_range({4, 5}, 7, 7).empty());
  EXPECT_TRUE(boxes_of_range({4, 5}, 20, 20).empty());
}

}  // namespace
}  // namespace vqlm
