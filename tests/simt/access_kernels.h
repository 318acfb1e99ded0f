// Kernels whose accesses' cost is worked out by hand, for the tests of access_counts.h. One warp each, unless said.
#pragma once

#include <cuda_runtime_api.h>

namespace vqlm::cuda {

/// Lane l stores a T at place l * store_stride of shared memory and loads the one at l * load_stride into out[l]; static or
/// dynamic shared memory. T is float, float2, float4 (width 1, 2, 4 floats).
enum class SharedKind { of_kernel, dynamic };
void through_shared(cudaStream_t stream, float* out, int width, int store_stride, int load_stride, SharedKind kind);

/// Lane l copies the T at in + l * stride to out + l; T of 1, 2, 4 or 8 floats.
void copy_strided(cudaStream_t stream, float* out, const float* in, int width, int stride);

/// out[i] = in[i], a lane every 32nd; the lanes for which l % every == 0 alone.
void copy_in_loop(cudaStream_t stream, float* out, const float* in, int n, int every);

/// In a loop of `turns`: even lanes store to out[l], then all to out[32 + l] and so on; the warp meets after each turn where
/// `meet`.
void store_in_turns(cudaStream_t stream, float* out, int turns, bool meet);

/// cp.async of 16 bytes a lane: lane l from in + 4 l to place l * stride (16 bytes each) of shared memory; `valid` lanes read.
void copy_by_cp_async(cudaStream_t stream, float* out, const float* in, int stride, int valid);

/// ldmatrix_x4, or x2, of rows that are row_bytes apart.
void load_matrix_rows(cudaStream_t stream, float* out, int row_bytes, int matrices);

/// Lane l adds to place l * stride, in shared and in global memory.
void add_atomically(cudaStream_t stream, int* out, int stride);

}  // namespace vqlm::cuda
