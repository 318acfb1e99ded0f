// cuBLASLt's functions in use, forwarded to the library, which is opened at the first call. Linked directly, its 540 MB
// with 6,500 static constructors cost every start of the program 65 ms (0.6 s from a cold disk), `vqlm --help` and runs on
// the CPU too. The tests' host executor has its own definitions of these functions in place of this file.
#include <cublasLt.h>

#include <string>

#include "core/foreign_library.h"

namespace {

const vqlm::ForeignLibrary& library() {
  static const std::string version = std::to_string(CUBLAS_VER_MAJOR), name = "libcublasLt.so." + version;
  // The loader's own search first (LD_LIBRARY_PATH, ldconfig), then the toolkit that the program was built with.
  static const vqlm::ForeignLibrary opened(
      {name, std::string(VQLM_CUDA_LIBRARY_DIR) + "/" + name},
      "install cuBLAS " + version + " or add its folder to LD_LIBRARY_PATH, or compute on the CPU with --device cpu");
  return opened;
}

}  // namespace

// One lookup for each function, at its first call.
#define VQLM_FORWARD(function, ...)                                       \
  static auto* const of_library = library().find(&::function, #function); \
  return of_library(__VA_ARGS__)

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  VQLM_FORWARD(cublasLtCreate, handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  VQLM_FORWARD(cublasLtDestroy, handle);
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  VQLM_FORWARD(cublasLtGetStatusString, status);
}

size_t cublasLtGetVersion() {
  VQLM_FORWARD(cublasLtGetVersion);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  VQLM_FORWARD(cublasLtMatmulDescCreate, product, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  VQLM_FORWARD(cublasLtMatmulDescDestroy, product);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  VQLM_FORWARD(cublasLtMatmulDescSetAttribute, product, attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading_dimension) {
  VQLM_FORWARD(cublasLtMatrixLayoutCreate, layout, type, rows, columns, leading_dimension);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  VQLM_FORWARD(cublasLtMatrixLayoutDestroy, layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  VQLM_FORWARD(cublasLtMatmulPreferenceCreate, preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  VQLM_FORWARD(cublasLtMatmulPreferenceDestroy, preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  VQLM_FORWARD(cublasLtMatmulPreferenceSetAttribute, preference, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  VQLM_FORWARD(cublasLtMatmulAlgoGetHeuristic, handle, product, a, b, c, d, preference, asked, results, found);
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t compute, cudaDataType_t scale,
                                      cudaDataType_t a, cudaDataType_t b, cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t* algo) {
  VQLM_FORWARD(cublasLtMatmulAlgoInit, handle, compute, scale, a, b, c, d, id, algo);
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  VQLM_FORWARD(cublasLtMatmulAlgoCheck, handle, product, a, b, c, d, algo, result);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
  VQLM_FORWARD(cublasLtMatmulAlgoConfigGetAttribute, algo, attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  VQLM_FORWARD(cublasLtMatmulAlgoConfigSetAttribute, algo, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  VQLM_FORWARD(cublasLtMatmul, handle, product, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo,
               workspace, workspace_bytes, stream);
}

}  // extern "C"
