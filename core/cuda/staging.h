// Copies between pageable host memory and the device, through page-locked blocks that both sides work on in turn.
#pragma once

#include <array>

#include "core/cuda/handles.h"

namespace vqlm::cuda {

class Staging {
 public:
  /// Copies on `stream`, after the work already there. One thread at a time.
  explicit Staging(cudaStream_t stream) : stream_(stream) {}

  /// `source` may change when this returns; later work on the stream finds the copy in place. The host does not wait for
  /// the stream's earlier work unless the blocks are all in flight.
  void to_device(void* target, const void* source, std::size_t bytes);
  /// Complete when it returns.
  void to_host(void* target, const void* source, std::size_t bytes);

 private:
  // Two blocks keep the copy engine and the host's memcpy (about 10 GB/s) at work together; 4 MiB makes the cost of a copy
  // call (some 5 us) small beside its 80 us on PCIe 5.
  static constexpr std::size_t block_bytes = std::size_t{4} << 20;
  struct Block {
    PinnedBuffer memory{block_bytes};
    DeviceEvent done{Timing::no};  // the last copy from or to this block
  };

  cudaStream_t stream_;
  std::array<Block, 2> blocks_;
  std::size_t next_ = 0;
};

}  // namespace vqlm::cuda
