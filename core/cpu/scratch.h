// Working memory of one op call: a block of floats for each thread, aligned for vectors.
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <string>

#include "core/error.h"

namespace vqlm::cpu {

class Scratch {
 public:
  /// `threads` blocks of `floats` floats, contents undefined; either may be 0. Throws Error where the machine has no
  /// memory left; made before a parallel region, since nothing may throw inside.
  Scratch(int threads, std::int64_t floats) : stride_((floats + 63) / 64 * 64) {
    const std::int64_t total = threads * stride_;
    if (total == 0) return;  // Highway refuses empty blocks
    data_ = hwy::AllocateAligned<float>(static_cast<std::size_t>(total));
    if (data_ == nullptr) {
      throw Error("cpu: no memory for " + std::to_string(threads) + " blocks of " + std::to_string(stride_) +
                  " floats of scratch; use a smaller train.micro_batch");
    }
  }

  float* of_thread(int thread) const { return data_.get() + thread * stride_; }

 private:
  std::int64_t stride_;
  hwy::AlignedFreeUniquePtr<float[]> data_;
};

/// Hands out consecutive 64-byte aligned pieces of a block.
class ScratchCursor {
 public:
  explicit ScratchCursor(float* block) : next_(block) {}
  float* take(std::int64_t floats) {
    float* const piece = next_;
    next_ += rounded(floats);
    return piece;
  }
  /// What take(floats) uses up.
  static constexpr std::int64_t rounded(std::int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

}  // namespace vqlm::cpu
