#include "dist/self_communicator.h"

#include <cstring>

namespace vqlm {

Event SelfCommunicator::all_reduce(Tensor x, Reduce /*op*/, Stream /*stream*/) {
  VQLM_ASSERT(x.dtype() != DType::u8);
  return {};
}

Event SelfCommunicator::reduce_scatter(Tensor out, Tensor in, Reduce /*op*/, Stream stream) {
  VQLM_ASSERT(in.dtype() != DType::u8);
  return copy(out, in, stream);
}

Event SelfCommunicator::all_gather(Tensor out, Tensor in, Stream stream) {
  return copy(out, in, stream);
}

Event SelfCommunicator::all_to_all(Tensor out, Tensor in, Stream stream) {
  return copy(out, in, stream);
}

Event SelfCommunicator::all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                                     std::span<const std::int64_t> in_counts, Stream stream) {
  check_all_to_all_v(*this, out, out_counts, in, in_counts);
  return copy(out, in, stream);
}

Event SelfCommunicator::broadcast(Tensor /*x*/, int root, Stream /*stream*/) {
  VQLM_ASSERT(root == 0);
  return {};
}

// Backend::copy runs on the compute stream; the waits put it after the work on `stream`, as the contract
// says.
Event SelfCommunicator::copy(Tensor out, Tensor in, Stream stream) {
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel());
  if (out.data() == in.data() || in.numel() == 0) return {};
  if (backend_ == nullptr) {
    std::memcpy(out.data(), in.data(), in.bytes());
    return {};
  }
  if (stream.handle != backend_->compute_stream().handle) {
    backend_->wait(backend_->compute_stream(), backend_->record(stream));
  }
  backend_->copy(out, in);
  return backend_->record(backend_->compute_stream());
}

}  // namespace vqlm
