#include "core/cuda/matmul_plans.h"

#include <spdlog/fmt/fmt.h>

#include "core/cuda/cuda_check.h"
#include "core/error.h"
#include "core/log.h"

namespace vqlm::cuda {
namespace {

void log_failure(cublasStatus_t status, const char* call) noexcept {
  if (status != CUBLAS_STATUS_SUCCESS) log::error("cuBLASLt: {}: {}", call, cublasLtGetStatusString(status));
}

/// An object of cuBLASLt that `Destroy` frees.
template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_ != nullptr) log_failure(Destroy(handle_), "Destroy");
  }
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};

using Product = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

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

/// A column-major matrix, as it is stored.
void make_layout(Layout& layout, cudaDataType type, std::int64_t rows, std::int64_t columns,
                 std::int64_t leading_dimension) {
  cublas_check(cublasLtMatrixLayoutCreate(layout.out(), type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns),
                                          leading_dimension == 0 ? rows : leading_dimension),
               "cublasLtMatrixLayoutCreate");
}

const char* name_of(cudaDataType type) {
  return type == CUDA_R_16BF ? "bf16" : "fp32";
}

}  // namespace

void cublas_check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("cuBLASLt: {}: {}", call, cublasLtGetStatusString(status)));
}

std::string ProductShape::str() const {
  const auto stored = [](std::int64_t leading, std::int64_t packed) { return leading == 0 ? packed : leading; };
  return fmt::format("{} x {} x {} ({} to {}, rows of {} and {}, aligned to {}, {} and {} bytes)", columns, rows, depth,
                     name_of(operands), name_of(result), stored(leading_b, rows_b()), stored(leading_a, rows_a()),
                     alignment_b, alignment_a, alignment_d);
}

struct MatmulPlans::Plan {
  Product product;
  Layout a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
  bool supported = false;

  /// Asks the library's heuristics for an algorithm; `schemes`: how sums of a split K may be made.
  void choose(cublasLtHandle_t handle, const ProductShape& shape, std::size_t workspace_bytes, std::uint32_t schemes);
};

void MatmulPlans::Plan::choose(cublasLtHandle_t handle, const ProductShape& shape, std::size_t workspace_bytes,
                               std::uint32_t schemes) {
  Preference preference;
  cublas_check(cublasLtMatmulPreferenceCreate(preference.out()), "cublasLtMatmulPreferenceCreate");
  set(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  const auto set_alignment = [&](cublasLtMatmulPreferenceAttributes_t operand, int bytes) {
    set(preference.get(), operand, static_cast<std::uint32_t>(bytes));
  };
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.alignment_a);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.alignment_b);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.alignment_d);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.alignment_d);
  set(preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, product.get(), a.get(), b.get(), d.get(),
                                                               d.get(), preference.get(), 1, &best, &found);
  if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED) {
    throw Error(fmt::format("cuBLASLt: cublasLtMatmulAlgoGetHeuristic for a product of {}: {}", shape.str(),
                            cublasLtGetStatusString(status)));
  }
  supported = status == CUBLAS_STATUS_SUCCESS && found > 0;
  if (supported) algorithm = best.algo;
}

MatmulPlans::MatmulPlans(void* workspace, std::size_t workspace_bytes)
    : workspace_(workspace), workspace_bytes_(workspace_bytes) {
  cublas_check(cublasLtCreate(&handle_), "cublasLtCreate");
}

MatmulPlans::~MatmulPlans() {
  plans_.clear();
  log_failure(cublasLtDestroy(handle_), "cublasLtDestroy");
}

std::size_t MatmulPlans::workspace_bytes(int compute_capability) {
  return std::size_t{compute_capability >= 90 ? 64u : 32u} << 20;
}

const MatmulPlans::Plan& MatmulPlans::plan(const ProductShape& shape) {
  if (const auto known = plans_.find(shape); known != plans_.end()) return *known->second;
  auto made = std::make_unique<Plan>();
  // fp32 sums for bf16 operands, and true fp32 (no TF32) for fp32 ones.
  cublas_check(cublasLtMatmulDescCreate(made->product.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "cublasLtMatmulDescCreate");
  set(made->product.get(), CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a);
  set(made->product.get(), CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b);
  make_layout(made->a, shape.operands, shape.rows_a(), shape.columns_a(), shape.leading_a);
  make_layout(made->b, shape.operands, shape.rows_b(), shape.columns_b(), shape.leading_b);
  make_layout(made->d, shape.result, shape.rows, shape.columns, shape.leading_d);
  // Where K is split, its parts are summed in fp32; in place of a bf16 result each part would be rounded.
  const std::uint32_t fp32_sums = shape.result == CUDA_R_32F
                                      ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_INPLACE
                                      : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  made->choose(handle_, shape, workspace_bytes_, fp32_sums);
  if (!made->supported) made->choose(handle_, shape, workspace_bytes_, CUBLASLT_REDUCTION_SCHEME_MASK);
  return *plans_.emplace(shape, std::move(made)).first->second;
}

bool MatmulPlans::supports(const ProductShape& shape) {
  return plan(shape).supported;
}

void MatmulPlans::run(const ProductShape& shape, const void* a, const void* b, void* d, float beta,
                      cudaStream_t stream) {
  const Plan& planned = plan(shape);
  if (!planned.supported) throw Error(fmt::format("cuBLASLt: no algorithm for a product of {}", shape.str()));
  const float alpha = 1;
  cublas_check(
      cublasLtMatmul(handle_, planned.product.get(), &alpha, a, planned.a.get(), b, planned.b.get(), &beta, d,
                     planned.d.get(), d, planned.d.get(), &planned.algorithm, workspace_, workspace_bytes_, stream),
      "cublasLtMatmul");
}

}  // namespace vqlm::cuda
