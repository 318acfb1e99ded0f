// Stands before CUDA's own cuda_runtime.h in the include path of the host executor's build: the real types and
// prototypes, and for what only nvcc knows (qualifiers, built-in variables, barriers, shuffles, atomics, intrinsics)
// versions that run on the CPU.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include "tests/simt/device_atomics.h"
#include "tests/simt/device_builtins.h"
#include "tests/simt/device_math.h"

// Blocks run one at a time on one thread, so a block's shared memory is a static variable; AddressSanitizer and
// ThreadSanitizer then watch it as any other global.
#undef __shared__
#define __shared__ static
#undef __constant__
#define __constant__ static
#define __launch_bounds__(...)

// The typed overloads that cuda_runtime.h adds to the C interface.
template <class T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  return ::cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, size_t bytes, unsigned flags = 0) {
  return ::cudaHostAlloc(reinterpret_cast<void**>(pointer), bytes, flags);
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, size_t bytes, cudaStream_t stream) {
  return ::cudaMallocAsync(reinterpret_cast<void**>(pointer), bytes, stream);
}
