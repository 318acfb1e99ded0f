#include "tests/simt/cublaslt_algorithms.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "tests/simt/cublaslt_rules.h"

namespace simt {
namespace {

constexpr std::uint32_t workspace_in_use = 4096;

// In the heuristic's order.
constexpr std::array<Algorithm, 5> all = {{
    {.id = slow_algorithm, .tile = 20, .stages = 8},
    {.id = lost_algorithm, .tile = 24, .stages = 8, .inner_shape = 2, .cluster_shape = 3},
    {.id = unsteady_algorithm, .tile = 18, .stages = 6, .swizzle = 1},
    {.id = split_algorithm, .tile = 18, .stages = 8, .split_k = 3, .reduction_scheme = 2, .swizzle = 1},
    {.id = deep_algorithm, .tile = 15, .stages = 12, .custom_option = 3},
}};

struct Counts {
  std::mutex mutex;
  std::map<int, std::int64_t> products;
};
Counts& counts() {
  static Counts all_counts;
  return all_counts;
}

const Algorithm* known(int id) {
  for (const Algorithm& algorithm : all) {
    if (algorithm.id == id) return &algorithm;
  }
  return nullptr;
}

template <class T>
cublasStatus_t read(T value, void* out, std::size_t bytes, std::size_t* written) {
  if (bytes != 0 && (out == nullptr || bytes != sizeof(T))) return CUBLAS_STATUS_INVALID_VALUE;
  if (written != nullptr) *written = sizeof(T);
  if (bytes != 0) std::memcpy(out, &value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t change(T& target, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&target, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

/// use(member) for the attribute's member; an unknown attribute is no value.
template <class AnyAlgorithm, class Use>
cublasStatus_t with_attribute(AnyAlgorithm& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute, const Use& use) {
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
      return use(algorithm.tile);
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
      return use(algorithm.split_k);
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
      return use(algorithm.reduction_scheme);
    case CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING:
      return use(algorithm.swizzle);
    case CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION:
      return use(algorithm.custom_option);
    case CUBLASLT_ALGO_CONFIG_STAGES_ID:
      return use(algorithm.stages);
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID:
      return use(algorithm.inner_shape);
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID:
      return use(algorithm.cluster_shape);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

std::uint32_t workspace_of(const Algorithm& algorithm, std::uint64_t limit) {
  if (algorithm.split_k > 1) return workspace_in_use;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, workspace_in_use));  // some use what there is
}

}  // namespace

Operations& of(cublasLtMatmulDesc_t handle) {
  return *reinterpret_cast<Operations*>(handle);
}
Layout& of(cublasLtMatrixLayout_t handle) {
  return *reinterpret_cast<Layout*>(handle);
}

Algorithm algorithm_of(const cublasLtMatmulAlgo_t& algo) {
  Algorithm algorithm;
  std::memcpy(static_cast<void*>(&algorithm), &algo, sizeof(algorithm));
  return algorithm;
}

void write(cublasLtMatmulAlgo_t& algo, const Algorithm& algorithm) {
  std::memcpy(&algo, &algorithm, sizeof(algorithm));
}

std::vector<Algorithm> algorithms_for(const Product& call, std::uint64_t workspace_bytes,
                                      std::uint32_t reduction_schemes) {
  std::vector<Algorithm> found;
  for (Algorithm algorithm : all) {
    algorithm.workspace_bytes = workspace_of(algorithm, workspace_bytes);
    if (algorithm.workspace_bytes > workspace_bytes || call.depth() < algorithm.split_k) continue;
    if (algorithm.split_k > 1 && (algorithm.reduction_scheme & reduction_schemes) == 0) continue;
    algorithm.proposed = 1;
    found.push_back(algorithm);
  }
  return found;
}

std::int64_t nanoseconds_of(const Algorithm& algorithm, const Product& call) {
  switch (algorithm.id) {
    case slow_algorithm:
      return 4000;
    case split_algorithm:
      return 2000;
    case deep_algorithm:  // for products that are deeper than they are wide
      return call.depth() > call.rows() ? 1000 : 3000;
    default:
      return 500;
  }
}

bool is_unsteady(const Algorithm& algorithm) {
  return algorithm.id == unsteady_algorithm;
}

std::int64_t count_product(const Algorithm& algorithm) {
  const std::lock_guard lock(counts().mutex);
  return ++counts().products[algorithm.id];
}

std::int64_t products_by(int id) {
  const std::lock_guard lock(counts().mutex);
  return counts().products[id];
}

void log_products() {
  const char* path = std::getenv("SIMT_PRODUCTS_LOG");
  if (path == nullptr) return;
  const std::lock_guard lock(counts().mutex);
  std::FILE* file = std::fopen(path, "a");
  if (file == nullptr) return;
  for (const auto& [id, products] : counts().products)
    std::fprintf(file, "%d %lld\n", id, static_cast<long long>(products));
  std::fclose(file);
  counts().products.clear();
}

}  // namespace simt

using simt::of;

extern "C" {

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t, cublasComputeType_t compute, cudaDataType_t scale,
                                      cudaDataType_t a, cudaDataType_t b, cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t* algo) {
  const simt::Algorithm* const found = simt::known(id);
  if (algo == nullptr || found == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F || a != b || c != d) return CUBLAS_STATUS_NOT_SUPPORTED;
  simt::Algorithm bare;
  bare.id = id;
  simt::write(*algo, bare);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
  const simt::Algorithm algorithm = simt::algorithm_of(*algo);
  if (attribute == CUBLASLT_ALGO_CONFIG_ID) return simt::read(algorithm.id, value, bytes, written);
  return simt::with_attribute(algorithm, attribute,
                              [&](auto member) { return simt::read(member, value, bytes, written); });
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  simt::Algorithm algorithm = simt::algorithm_of(*algo);  // its id is for reading
  const cublasStatus_t status =
      simt::with_attribute(algorithm, attribute, [&](auto& member) { return simt::change(member, value, bytes); });
  simt::write(*algo, algorithm);
  return status;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operations, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  const simt::Product call{of(operations), of(a),   of(b), of(c), of(d),   nullptr, nullptr,
                           nullptr,        nullptr, 0,     0,     nullptr, 0};
  simt::Algorithm algorithm = simt::algorithm_of(*algo);
  const simt::Algorithm* const found = simt::known(algorithm.id);
  if (result == nullptr || found == nullptr || !call.shapes_agree()) return CUBLAS_STATUS_INVALID_VALUE;
  // What makes this one is not all in its configuration.
  if (algorithm.id == simt::lost_algorithm && algorithm.proposed == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool as_made = algorithm.tile == found->tile && algorithm.stages == found->stages &&
                       algorithm.split_k == found->split_k && algorithm.reduction_scheme == found->reduction_scheme &&
                       algorithm.custom_option == found->custom_option;
  if (!call.types_supported() || !as_made || call.depth() < algorithm.split_k) return CUBLAS_STATUS_NOT_SUPPORTED;
  *result = {};
  result->workspaceSize = algorithm.split_k > 1 ? simt::workspace_in_use : 0;
  result->state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
