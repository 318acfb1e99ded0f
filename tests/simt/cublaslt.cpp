// Stand-in for the part of cuBLASLt in use: D = alpha op(A) op(B) + beta C for bf16 or fp32 operands, CUBLAS_COMPUTE_32F,
// any order, queued on the stream and computed by oneDNN in fp32. It is as strict as the library about shapes, the
// workspace and the alignments that the preference promised, and stricter about bf16 operands whose rows are unaligned.
#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>

#include "tests/simt/cublaslt_algorithms.h"
#include "tests/simt/cublaslt_product.h"
#include "tests/simt/cublaslt_rules.h"
#include "tests/simt/event_clock.h"
#include "tests/simt/streams.h"

namespace {

using simt::Algorithm;
using simt::Layout;
using simt::of;
using simt::Operations;
using simt::Product;

struct Preference {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // A, B, C, D
  std::uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
};

Preference& of(cublasLtMatmulPreference_t handle) {
  return *reinterpret_cast<Preference*>(handle);
}

template <class T>
cublasStatus_t set(T& target, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&target, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

bool aligned(const void* pointer, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

simt::UnalignedOperands unaligned_rule = simt::UnalignedOperands::refused;

/// cuBLASLt reads bf16 operands fast, by 16 bytes, where every stored row begins at a multiple of 8 elements.
bool rows_aligned(const Layout& layout, std::uint32_t bytes_of_address) {
  return layout.type != CUDA_R_16BF || (layout.leading_dimension % 8 == 0 && bytes_of_address % 16 == 0);
}

/// The rule for an operand, of which `address` is known to be a multiple of bytes_of_address.
cublasStatus_t check_rows(const char* operand, const Layout& layout, std::uint32_t bytes_of_address) {
  if (unaligned_rule == simt::UnalignedOperands::allowed || rows_aligned(layout, bytes_of_address))
    return CUBLAS_STATUS_SUCCESS;
  if (unaligned_rule == simt::UnalignedOperands::no_algorithm) return CUBLAS_STATUS_NOT_SUPPORTED;
  std::fprintf(
      stderr,
      "simt: cuBLASLt: operand %s (%lld x %lld bf16, leading dimension %lld, aligned to %u bytes) is slow to read: "
      "pad its rows to a multiple of 8 elements, and begin at a multiple of 16 bytes\n",
      operand, static_cast<long long>(layout.rows), static_cast<long long>(layout.columns),
      static_cast<long long>(layout.leading_dimension), bytes_of_address);
  return CUBLAS_STATUS_INVALID_VALUE;
}

}  // namespace

void simt::set_unaligned_operands(UnalignedOperands rule) {
  unaligned_rule = rule;
}

struct cublasLtContext {};

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  simt::log_products();
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
      return "CUBLAS_STATUS_UNKNOWN";
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* handle, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *handle = reinterpret_cast<cublasLtMatmulDesc_t>(new Operations);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t handle) {
  delete &of(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(of(handle).transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(of(handle).transpose_b, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* handle, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading_dimension) {
  *handle = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), leading_dimension});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t handle) {
  delete &of(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t handle,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set(of(handle).order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return set(of(handle).leading_dimension, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* handle) {
  *handle = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t handle) {
  delete &of(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(of(handle).workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(of(handle).reduction_schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(of(handle).alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(of(handle).alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(of(handle).alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(of(handle).alignment[3], value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operations,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  *found = 0;
  const Product call{of(operations), of(a), of(b), of(c), of(d), nullptr, nullptr, nullptr, nullptr, 0, 0, nullptr, 0};
  if (asked < 1 || !call.shapes_agree() || of(c).order != of(d).order) return CUBLAS_STATUS_INVALID_VALUE;
  if (!call.types_supported()) return CUBLAS_STATUS_NOT_SUPPORTED;
  for (const auto& [name, layout, index] : {std::tuple{"A", a, 0}, {"B", b, 1}}) {
    const cublasStatus_t status = check_rows(name, of(layout), of(preference).alignment[index]);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  const Preference& wanted = of(preference);
  for (Algorithm& algorithm : simt::algorithms_for(call, wanted.workspace_bytes, wanted.reduction_schemes)) {
    if (*found == asked) break;
    for (std::size_t i = 0; i < 4; ++i)
      algorithm.alignment_bits[i] = static_cast<std::uint8_t>(std::countr_zero(wanted.alignment[i]));
    cublasLtMatmulHeuristicResult_t& result = results[(*found)++];
    result = {};
    simt::write(result.algo, algorithm);
    result.workspaceSize = algorithm.workspace_bytes;
    result.state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operations, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* chosen, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (chosen == nullptr) return CUBLAS_STATUS_NOT_SUPPORTED;  // the library would search on each call
  const Algorithm algorithm = simt::algorithm_of(*chosen);
  const auto promised = [&](std::size_t operand) { return 1u << algorithm.alignment_bits[operand]; };
  const Product call{of(operations),
                     of(a_layout),
                     of(b_layout),
                     of(c_layout),
                     of(d_layout),
                     a,
                     b,
                     c,
                     d,
                     *static_cast<const float*>(alpha),
                     *static_cast<const float*>(beta),
                     workspace,
                     algorithm.workspace_bytes,
                     algorithm.split_k};
  if (!call.shapes_agree() || !call.types_supported() || of(c_layout).order != of(d_layout).order || a == nullptr ||
      b == nullptr || d == nullptr || (c == nullptr && call.beta != 0.0f) || !aligned(a, promised(0)) ||
      !aligned(b, promised(1)) || !aligned(c, promised(2)) || !aligned(d, promised(3)) ||
      workspace_bytes < algorithm.workspace_bytes ||
      (algorithm.workspace_bytes > 0 && (workspace == nullptr || !aligned(workspace, 256)))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (algorithm.proposed == 0) {  // nobody promised anything
    const auto bytes = [](const void* address) {
      return 1u << std::min(std::countr_zero(reinterpret_cast<std::uintptr_t>(address)), 8);
    };
    if (check_rows("A", of(a_layout), bytes(a)) != CUBLAS_STATUS_SUCCESS) return CUBLAS_STATUS_INVALID_VALUE;
    if (check_rows("B", of(b_layout), bytes(b)) != CUBLAS_STATUS_SUCCESS) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cudaError_t status = simt::enqueue(
      stream,
      [call, algorithm] {
        simt::pass_time(simt::nanoseconds_of(algorithm, call));
        const std::int64_t number = simt::count_product(algorithm);
        if (!call.run()) return false;
        if (simt::is_unsteady(algorithm) && number % 2 == 0) call.change_last_bit();
        return true;
      },
      simt::Work::kernel);
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
