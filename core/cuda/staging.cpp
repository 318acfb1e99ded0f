#include "core/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "core/cuda/cuda_check.h"

namespace vqlm::cuda {

void Staging::to_device(void* target, const void* source, std::size_t bytes) {
  for (std::size_t begin = 0; begin < bytes; begin += block_bytes) {
    const std::size_t count = std::min(block_bytes, bytes - begin);
    Block& block = blocks_[next_++ % blocks_.size()];
    // An event that was never recorded counts as reached.
    cuda_check(cudaEventSynchronize(block.done.get()), "cudaEventSynchronize");
    std::memcpy(block.memory.data(), static_cast<const std::byte*>(source) + begin, count);
    cuda_check(cudaMemcpyAsync(static_cast<std::byte*>(target) + begin, block.memory.data(), count,
                               cudaMemcpyHostToDevice, stream_),
               "cudaMemcpyAsync to the device");
    cuda_check(cudaEventRecord(block.done.get(), stream_), "cudaEventRecord");
  }
}

void Staging::to_host(void* target, const void* source, std::size_t bytes) {
  const std::size_t first = next_;
  const std::size_t pieces = (bytes + block_bytes - 1) / block_bytes;
  const auto count_of = [&](std::size_t piece) { return std::min(block_bytes, bytes - piece * block_bytes); };
  const auto begin_copy = [&](std::size_t piece) {
    Block& block = blocks_[(first + piece) % blocks_.size()];
    cuda_check(cudaMemcpyAsync(block.memory.data(), static_cast<const std::byte*>(source) + piece * block_bytes,
                               count_of(piece), cudaMemcpyDeviceToHost, stream_),
               "cudaMemcpyAsync to the host");
    cuda_check(cudaEventRecord(block.done.get(), stream_), "cudaEventRecord");
  };
  // The copies run ahead of the host by all blocks; an upload that still reads a block is earlier in the same stream.
  for (std::size_t piece = 0; piece < std::min(pieces, blocks_.size()); ++piece) begin_copy(piece);
  for (std::size_t piece = 0; piece < pieces; ++piece) {
    Block& block = blocks_[(first + piece) % blocks_.size()];
    cuda_check(cudaEventSynchronize(block.done.get()), "cudaEventSynchronize");
    std::memcpy(static_cast<std::byte*>(target) + piece * block_bytes, block.memory.data(), count_of(piece));
    if (piece + blocks_.size() < pieces) begin_copy(piece + blocks_.size());
  }
  next_ = first + pieces;
}

}  // namespace vqlm::cuda
