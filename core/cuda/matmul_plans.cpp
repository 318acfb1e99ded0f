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

/// A column-major matrix without gaps, as it is stored.
void make_layout(Layout& layout, cudaDataType type, std::int64_t rows, std::int64_t columns) {
  cublas_check(cublasLtMatrixLayoutCreate(layout.out(), type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), rows),
               "cublasLtMatrixLayoutCreate");
}

}  // namespace

void cublas_check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("cuBLASLt: {}: {}", call, cublasLtGetStatusString(status)));
}

struct MatmulPlans::Plan {
  Product product;
  Layout a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
};

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
  std::unique_ptr<Plan>& known = plans_[shape];
  if (known != nullptr) return *known;
  auto made = std::make_unique<Plan>();
  // fp32 sums for bf16 operands, and true fp32 (no TF32) for fp32 ones.
  cublas_check(cublasLtMatmulDescCreate(made->product.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "cublasLtMatmulDescCreate");
  set(made->product.get(), CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a);
  set(made->product.get(), CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b);
  const bool a_as_is = shape.transpose_a == CUBLAS_OP_N, b_as_is = shape.transpose_b == CUBLAS_OP_N;
  make_layout(made->a, shape.operands, a_as_is ? shape.rows : shape.depth,
              a_as_is ? shape.depth : shape.rows);
  make_layout(made->b, shape.operands, b_as_is ? shape.depth : shape.columns,
              b_as_is ? shape.columns : shape.depth);
  make_layout(made->d, shape.result, shape.rows, shape.columns);

  Preference preference;
  cublas_check(cublasLtMatmulPreferenceCreate(preference.out()), "cublasLtMatmulPreferenceCreate");
  set(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      static_cast<std::uint64_t>(workspace_bytes_));
  const auto set_alignment = [&](cublasLtMatmulPreferenceAttributes_t operand, int bytes) {
    set(preference.get(), operand, static_cast<std::uint32_t>(bytes));
  };
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.alignment_a);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.alignment_b);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.alignment_d);
  set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.alignment_d);
  // Where K is split, its parts are summed in fp32; in place of a bf16 result each part would be rounded.
  const std::uint32_t fp32_sums =
      shape.result == CUDA_R_32F ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_INPLACE
                                 : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  set(preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, fp32_sums);

  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, made->product.get(), made->a.get(), made->b.get(),
                                     made->d.get(), made->d.get(), preference.get(), 1, &best, &found);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
    throw Error(fmt::format(
        "cuBLASLt: no algorithm for a product of {} x {} x {} ({} operands aligned to {}, {} and {} bytes): "
        "{}",
        shape.columns, shape.rows, shape.depth, shape.operands == CUDA_R_16BF ? "bf16" : "fp32",
        shape.alignment_b, shape.alignment_a, shape.alignment_d, cublasLtGetStatusString(status)));
  }
  made->algorithm = best.algo;
  known = std::move(made);
  return *known;
}

void MatmulPlans::run(const ProductShape& shape, const void* a, const void* b, void* d, float beta,
                      cudaStream_t stream) {
  const Plan& planned = plan(shape);
  const float alpha = 1;
  cublas_check(cublasLtMatmul(handle_, planned.product.get(), &alpha, a, planned.a.get(), b, planned.b.get(),
                              &beta, d, planned.d.get(), d, planned.d.get(), &planned.algorithm, workspace_,
                              workspace_bytes_, stream),
               "cublasLtMatmul");
}

}  // namespace vqlm::cuda
