#include "core/cuda/tensor_maps.h"

#include <cuda_runtime_api.h>
#include <spdlog/fmt/fmt.h>

#include "core/cuda/cuda_check.h"
#include "core/error.h"

// CUDA 12.5 has cudaGetDriverEntryPointByVersion and calls this one deprecated; 12.0, the oldest that builds, has only this.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace vqlm::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// By way of the runtime: nothing else needs libcuda at link time.
Encode driver_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  cuda_check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
             "cudaGetDriverEntryPoint");
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw Error(
        "the CUDA driver has no cuTensorMapEncodeTiled, which attention on this GPU needs: install driver 525 or later");
  }
  return reinterpret_cast<Encode>(function);
}

}  // namespace

CUtensorMap tensor_map_bf16(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t outer,
                            std::int64_t row_stride, std::int64_t outer_stride, int box_rows) {
  static const Encode encode = driver_encode();
  const cuuint64_t extents[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows),
                                static_cast<cuuint64_t>(outer)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(row_stride) * 2, static_cast<cuuint64_t>(outer_stride) * 2};
  const cuuint32_t box[] = {tensor_map_columns, static_cast<cuuint32_t>(box_rows), 1}, elements[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), extents, strides,
                                 box, elements, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error(fmt::format("cuTensorMapEncodeTiled refused a tensor of ({}, {}, {}), strides {} and {}: error {}",
                            outer, rows, columns, outer_stride, row_stride, static_cast<int>(status)));
  }
  return map;
}

}  // namespace vqlm::cuda
