// Kernels that use Hopper's asynchronous units one at a time, for async_units_test.cpp.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "core/cuda/matrix_descriptor.h"

namespace vqlm::cuda {

/// One operand of a product: bytes of shared memory as they are to lie there, and how the descriptor describes them.
struct OperandImage {
  const __nv_bfloat16* bytes;
  int elements;  // multiple of 8
  unsigned start, leading, stride;
  Swizzle swizzle;
};

/// c (64, n) = 2 a b^T by one product that begins the sums and one that adds, n 64 or 128. a: an image (Major::k), or, where
/// a.elements is 0, a.bytes is (64, 16) as it is and goes through registers.
void multiply_images(cudaStream_t stream, float* c, OperandImage a, OperandImage b, Major b_major, int n);

struct BoxPosition {
  int at[4];
};
/// Loads a box of `bytes` bytes at `from`, writes it to `raw` as it lies in shared memory and, where `to` is given, stores it
/// there by another map. Both maps have `rank` dimensions, 2 to 4.
void copy_box(cudaStream_t stream, unsigned char* raw, const CUtensorMap& in, const CUtensorMap* out, int rank,
              BoxPosition from, BoxPosition to, int bytes);

/// Copies `bytes` bytes through shared memory by a bulk copy without a map.
void copy_bytes(cudaStream_t stream, unsigned char* out, const unsigned char* in, int bytes);

/// out (rounds, 32): a warp writes the round plus each lane's number, another, let go by a named barrier, the sum of what it sees;
/// both take turns by arriving and waiting.
void take_turns(cudaStream_t stream, int* out, int rounds);

}  // namespace vqlm::cuda
