#include "core/buffer.h"

#include "core/backend.h"

namespace vqlm {

Buffer::~Buffer() {
  if (owner_ != nullptr) owner_->deallocate(data_, bytes_, use_);
}

Tensor Buffer::view(Shape shape, DType dtype) const {
  VQLM_ASSERT(static_cast<std::size_t>(shape.numel()) * size_of(dtype) <= bytes_);
  return Tensor(data_, dtype, shape);
}

}  // namespace vqlm
