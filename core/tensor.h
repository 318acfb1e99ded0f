// Tensor: a view of contiguous row-major memory on the host or on a device. It never owns; Buffer does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/dtype.h"

namespace vqlm {

/// Up to four extents; rank 0 is a scalar's shape and also that of an absent tensor.
class Shape {
 public:
  static constexpr int max_rank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) {
    VQLM_ASSERT(extents.size() <= max_rank);
    for (std::int64_t extent : extents) {
      VQLM_ASSERT(extent >= 0);
      extents_[static_cast<std::size_t>(rank_++)] = extent;
    }
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const {
    VQLM_ASSERT(axis >= 0 && axis < rank_);
    return extents_[static_cast<std::size_t>(axis)];
  }
  void set(int axis, std::int64_t extent) {
    VQLM_ASSERT(axis >= 0 && axis < rank_);
    extents_[static_cast<std::size_t>(axis)] = extent;
  }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int axis = 0; axis < rank_; ++axis) n *= extents_[static_cast<std::size_t>(axis)];
    return n;
  }
  bool operator==(const Shape&) const = default;

  /// For messages: "(2, 3)".
  std::string str() const;

 private:
  std::array<std::int64_t, max_rank> extents_{};
  int rank_ = 0;
};

/// A view. Copying it copies the pointer. An absent tensor (default constructed) stands for an optional operand.
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(shape) {}

  explicit operator bool() const { return data_ != nullptr; }
  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t extent(int axis) const { return shape_[axis]; }
  std::int64_t numel() const { return data_ == nullptr ? 0 : shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }

  /// Typed pointer; T must match the dtype. Null for an absent tensor.
  template <class T>
  T* as() const {
    VQLM_ASSERT(data_ == nullptr || dtype_ == dtype_of<T>());
    return static_cast<T*>(data_);
  }
  float* f32() const { return as<float>(); }
  std::int32_t* i32() const { return as<std::int32_t>(); }

  /// The same elements under another shape of equal size.
  Tensor view(Shape shape) const {
    VQLM_ASSERT(shape.numel() == shape_.numel());
    return Tensor(data_, dtype_, shape);
  }
  /// Rows [begin, begin + count) of the first axis.
  Tensor rows(std::int64_t begin, std::int64_t count) const;
  /// Elements [begin, begin + count) of the flattened tensor, rank 1.
  Tensor range(std::int64_t begin, std::int64_t count) const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::f32;
  Shape shape_;
};

}  // namespace vqlm
