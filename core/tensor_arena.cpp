#include "core/tensor_arena.h"

namespace vqlm {
namespace {

// Vector loads on all back ends, and cuBLASLt's fastest kernels, want no more than this.
constexpr std::size_t tensor_alignment = 256;

}  // namespace

void TensorArena::add(Tensor& slot, Shape shape, DType dtype) {
  places_.push_back({&slot, shape, dtype, bytes_});
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_of(dtype);
  bytes_ += (bytes + tensor_alignment - 1) / tensor_alignment * tensor_alignment;
}

Buffer TensorArena::allocate(Backend& backend, MemoryUse use) {
  Buffer block = backend.allocate(bytes_, use);
  for (const Place& place : places_) {
    *place.slot = Tensor(static_cast<std::byte*>(block.data()) + place.begin, place.dtype, place.shape);
  }
  places_.clear();
  bytes_ = 0;
  return block;
}

}  // namespace vqlm
