#include "core/cuda/cublaslt_objects.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "core/log.h"

namespace vqlm::cuda {
namespace {

using Preference = CublasOwned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, T value) {
  cublas_check(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof(value)),
               "cublasLtMatmulDescSetAttribute");
}

template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  cublas_check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
               "cublasLtMatmulPreferenceSetAttribute");
}

cudaDataType data_type(DType type) {
  VQLM_ASSERT(type == DType::f32 || type == DType::bf16);
  return type == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

cublasOperation_t operation(Transpose transpose) {
  return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
}

/// A row-major matrix as it is stored: to the library a column-major one of `columns` rows.
void make_layout(cublasLtMatrixLayout_t* layout, DType type, std::int64_t rows, std::int64_t columns,
                 std::int64_t leading) {
  cublas_check(cublasLtMatrixLayoutCreate(layout, data_type(type), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), leading),
               "cublasLtMatrixLayoutCreate");
}

}  // namespace

void cublas_check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("cuBLASLt: {}: {}", call, cublasLtGetStatusString(status)));
}

void cublas_log_failure(cublasStatus_t status, const char* call) noexcept {
  if (status != CUBLAS_STATUS_SUCCESS) log::error("cuBLASLt: {}: {}", call, cublasLtGetStatusString(status));
}

ProductDescription::ProductDescription(const ProductShape& shape) {
  // fp32 sums for bf16 operands, and true fp32 (no TF32) for fp32 ones.
  cublas_check(cublasLtMatmulDescCreate(product.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  set(product.get(), CUBLASLT_MATMUL_DESC_TRANSA, operation(shape.tb));
  set(product.get(), CUBLASLT_MATMUL_DESC_TRANSB, operation(shape.ta));
  make_layout(first.out(), shape.operands, shape.rows_b(), shape.columns_b(), shape.leading_b);
  make_layout(second.out(), shape.operands, shape.rows_a(), shape.columns_a(), shape.leading_a);
  make_layout(result.out(), shape.result, shape.m, shape.n, shape.leading_c);
}

std::uint32_t reduction_schemes(const ProductShape& shape, int choice) {
  if (choice > 0) return CUBLASLT_REDUCTION_SCHEME_MASK;
  // Where K is split, its parts are summed in fp32; in place of a bf16 result each part would be rounded.
  return shape.result == DType::f32 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_INPLACE
                                    : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
}

namespace {

std::vector<cublasLtMatmulAlgo_t> proposed(cublasLtHandle_t library, const ProductDescription& description,
                                           const ProductShape& shape, std::size_t workspace_bytes,
                                           std::uint32_t schemes, int most) {
  Preference preference;
  cublas_check(cublasLtMatmulPreferenceCreate(preference.out()), "cublasLtMatmulPreferenceCreate");
  set(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  const auto set_alignment = [&](cublasLtMatmulPreferenceAttributes_t operand, int bytes) {
    set(preference.get(), operand, static_cast<std::uint32_t>(bytes));
  };
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.alignment_b);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.alignment_a);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.alignment_c);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.alignment_c);
  set(preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      library, description.product.get(), description.first.get(), description.second.get(), description.result.get(),
      description.result.get(), preference.get(), most, results.data(), &found);
  if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED) {
    throw Error(fmt::format("cuBLASLt: cublasLtMatmulAlgoGetHeuristic for a product of {}: {}", shape.str(),
                            cublasLtGetStatusString(status)));
  }
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = results[static_cast<std::size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(result.algo);
  }
  return algorithms;
}

/// The attributes of a configuration, each with its member: read and written alike.
template <class Configuration, class Use>
void for_each_attribute(Configuration& configuration, const Use& use) {
  use(CUBLASLT_ALGO_CONFIG_TILE_ID, configuration.tile);
  use(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, configuration.split_k);
  use(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, configuration.reduction_scheme);
  use(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, configuration.swizzle);
  use(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, configuration.custom_option);
  use(CUBLASLT_ALGO_CONFIG_STAGES_ID, configuration.stages);
  use(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, configuration.inner_shape);
  use(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, configuration.cluster_shape);
}

template <class T>
cublasStatus_t get(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute, T& value) {
  std::size_t written = 0;
  return cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value), &written);
}

}  // namespace

ProposedAlgorithms proposed_algorithms(cublasLtHandle_t library, const ProductDescription& description,
                                       const ProductShape& shape, std::size_t workspace_bytes, int most) {
  ProposedAlgorithms result;
  for (int choice = 0; choice < reduction_choices && result.algorithms.empty(); ++choice) {
    result.schemes = reduction_schemes(shape, choice);
    result.algorithms = proposed(library, description, shape, workspace_bytes, result.schemes, most);
  }
  return result;
}

std::optional<ProductAlgorithm> configuration_of(const cublasLtMatmulAlgo_t& algorithm) {
  ProductAlgorithm configuration;
  bool told = get(algorithm, CUBLASLT_ALGO_CONFIG_ID, configuration.id) == CUBLAS_STATUS_SUCCESS;
  for_each_attribute(configuration, [&](cublasLtMatmulAlgoConfigAttributes_t attribute, auto& value) {
    told = told && get(algorithm, attribute, value) == CUBLAS_STATUS_SUCCESS;
  });
  return told ? std::optional(configuration) : std::nullopt;
}

cublasLtMatmulAlgo_t algorithm_of(const ProductAlgorithm& configuration, cublasLtHandle_t library,
                                  const ProductDescription& description, const ProductShape& shape,
                                  std::size_t workspace_bytes, std::string& why) {
  cublasLtMatmulAlgo_t algorithm{};
  why.clear();
  if (configuration.split_k > 1 && (configuration.reduction_scheme & ~reduction_schemes(shape, 0)) != 0) {
    why = fmt::format("reduction scheme {} rounds the parts of a sum that is split", configuration.reduction_scheme);
    return algorithm;
  }
  const auto accept = [&](cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS && why.empty())
      why = fmt::format("{}: {}", call, cublasLtGetStatusString(status));
    return why.empty();
  };
  const cudaDataType operands = data_type(shape.operands), result = data_type(shape.result);
  if (!accept(cublasLtMatmulAlgoInit(library, CUBLAS_COMPUTE_32F, CUDA_R_32F, operands, operands, result, result,
                                     configuration.id, &algorithm),
              "cublasLtMatmulAlgoInit")) {
    return algorithm;
  }
  for_each_attribute(configuration, [&](cublasLtMatmulAlgoConfigAttributes_t attribute, auto value) {
    decltype(value) initial{};
    // An algorithm without the attribute refuses that it be set, also to what it is.
    if (get(algorithm, attribute, initial) == CUBLAS_STATUS_SUCCESS && initial == value) return;
    accept(cublasLtMatmulAlgoConfigSetAttribute(&algorithm, attribute, &value, sizeof(value)),
           "cublasLtMatmulAlgoConfigSetAttribute");
  });
  if (!why.empty()) return algorithm;
  cublasLtMatmulHeuristicResult_t checked{};
  if (accept(
          cublasLtMatmulAlgoCheck(library, description.product.get(), description.first.get(), description.second.get(),
                                  description.result.get(), description.result.get(), &algorithm, &checked),
          "cublasLtMatmulAlgoCheck") &&
      checked.workspaceSize > workspace_bytes) {
    why = fmt::format("it needs {} bytes of workspace, and there are {}", checked.workspaceSize, workspace_bytes);
  }
  return algorithm;
}

}  // namespace vqlm::cuda
