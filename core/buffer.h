// Buffer: owns a block of a back end's memory. Movable, not copyable; views of it are Tensors.
#pragma once

#include <cstddef>
#include <utility>

#include "core/tensor.h"

namespace vqlm {

class Backend;

/// What a block of memory is for; the back end keeps one account for each (the training log and vqlm bench report them).
enum class MemoryUse { parameters, gradients, optimizer, activations, workspace };
constexpr int memory_use_count = 5;

class Buffer {
 public:
  Buffer() = default;
  /// Made by Backend::allocate only; the back end must outlive the buffer.
  Buffer(Backend& owner, void* data, std::size_t bytes, MemoryUse use)
      : owner_(&owner), data_(data), bytes_(bytes), use_(use) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(use_, other.use_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  MemoryUse use() const { return use_; }

  /// A tensor over the first bytes of the block; it must fit.
  Tensor view(Shape shape, DType dtype = DType::f32) const;

 private:
  Backend* owner_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  MemoryUse use_ = MemoryUse::workspace;
};

}  // namespace vqlm
