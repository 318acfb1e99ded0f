// TensorArena: many tensors in one block of memory.
#pragma once

#include <vector>

#include "core/backend.h"

namespace vqlm {

/// First every tensor is announced by add(), then allocate() makes one block for all and fills the views in. The slots
/// must stay where they are in between.
class TensorArena {
 public:
  /// `slot` will be a tensor of this shape; it starts at a multiple of 256 bytes.
  void add(Tensor& slot, Shape shape, DType dtype);
  std::size_t bytes() const { return bytes_; }
  /// The block that the slots are views of. The arena is empty again afterwards.
  Buffer allocate(Backend& backend, MemoryUse use);

 private:
  struct Place {
    Tensor* slot;
    Shape shape;
    DType dtype;
    std::size_t begin;
  };
  std::vector<Place> places_;
  std::size_t bytes_ = 0;
};

}  // namespace vqlm
