// cuTensorMapEncodeTiled and the way to it. What CUDA refuses is refused, and what the executor does not model too.
#include "tests/simt/tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>

#include "tests/simt/runtime.h"

namespace simt {
namespace {

std::uint32_t element_bytes(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return 4;
    default:
      return 0;
  }
}

// -1: none that is modelled.
int swizzle_bytes(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
      return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B:
      return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
      return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B:
      return 128;
    default:
      return -1;
  }
}

bool valid(const TensorMap& map, int swizzle, const cuuint64_t* extents) {
  if (map.element == 0 || swizzle < 0 || map.rank < 1 || map.rank > 4) return false;
  if (map.global == nullptr || reinterpret_cast<std::uintptr_t>(map.global) % 16 != 0) return false;
  for (std::uint32_t d = 0; d < map.rank; ++d) {
    if (extents[d] == 0 || extents[d] > std::uint64_t{1} << 32 || map.box[d] == 0 || map.box[d] > 256) return false;
    if (d > 0 && (map.strides[d] % 16 != 0 || map.strides[d] >= std::uint64_t{1} << 40)) return false;
  }
  const std::uint32_t row = map.box[0] * map.element;
  // A swizzled row narrower than the swizzle is legal; how it lies in memory is not modelled.
  return row % 16 == 0 && (swizzle == 0 || row == static_cast<std::uint32_t>(swizzle));
}

CUresult encode_tiled(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* global,
                      const cuuint64_t* extents, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  if (reinterpret_cast<std::uintptr_t>(out) % 64 != 0 || rank < 1 || rank > 4) return CUDA_ERROR_INVALID_VALUE;
  TensorMap map;
  map.global = static_cast<unsigned char*>(global);
  map.rank = rank;
  map.element = element_bytes(type);
  map.strides[0] = map.element;
  for (std::uint32_t d = 0; d < rank; ++d) {
    map.extent[d] = static_cast<std::uint32_t>(extents[d]);
    map.box[d] = box[d];
    if (d > 0) map.strides[d] = strides[d - 1];
    if (element_strides[d] != 1) return CUDA_ERROR_INVALID_VALUE;
  }
  const int width = swizzle_bytes(swizzle);
  if (!valid(map, width, extents) || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  map.swizzle = static_cast<std::uint32_t>(width);
  map.mark = tensor_map_mark;
  std::memset(out, 0, sizeof(*out));
  std::memcpy(out, &map, sizeof(map));
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace simt

extern "C" cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long,
                                               cudaDriverEntryPointQueryResult* found) {
  const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = known ? reinterpret_cast<void*>(simt::encode_tiled) : nullptr;
  if (found != nullptr) *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return known ? cudaSuccess : simt::result(cudaErrorSymbolNotFound);
}
