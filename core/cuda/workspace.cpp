#include "core/backend.h"
#include "core/cuda/context.h"
#include "core/cuda/handles.h"

namespace vqlm::cuda {

void* Workspace::get(std::size_t bytes) {
  const bool capturing = is_capturing(static_cast<cudaStream_t>(owner_.compute_stream().handle));
  if (bytes > block_.bytes() || block_.data() == nullptr) {
    VQLM_ASSERT(!capturing);  // an op that had not run before the capture
    if (in_graph_) kept_.push_back(std::move(block_));
    block_ = Buffer();  // before the larger one is asked for: in stream order its memory can serve again
    block_ = owner_.allocate(bytes, MemoryUse::workspace);
    in_graph_ = false;
  }
  in_graph_ = in_graph_ || capturing;
  return block_.data();
}

}  // namespace vqlm::cuda
