// cuBLASLt's objects: owners, checks, and a product as the library describes it.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>

#include "core/product_algorithms.h"

namespace vqlm::cuda {

/// Throws Error "cuBLASLt: <call>: <status>" unless status is CUBLAS_STATUS_SUCCESS.
void cublas_check(cublasStatus_t status, const char* call);
void cublas_log_failure(cublasStatus_t status, const char* call) noexcept;

/// An object of cuBLASLt that `Destroy` frees.
template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class CublasOwned {
 public:
  CublasOwned() = default;
  CublasOwned(const CublasOwned&) = delete;
  CublasOwned& operator=(const CublasOwned&) = delete;
  ~CublasOwned() {
    if (handle_ != nullptr) cublas_log_failure(Destroy(handle_), "Destroy");
  }
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};

using CublasLibrary = CublasOwned<cublasLtHandle_t, cublasLtDestroy>;

/// Row-major c (m, n) is column-major c^T (n, m), so what the library computes is c^T = op(b)^T op(a)^T, with b in first place
/// and each operand transposed exactly where it is in the shape.
struct ProductDescription {
  CublasOwned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> product;
  CublasOwned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy> first, second, result;  // of b, a and c

  explicit ProductDescription(const ProductShape& shape);
};

/// How sums of a split K may be made, in the order of preference: in fp32 where the library can.
inline constexpr int reduction_choices = 2;
std::uint32_t reduction_schemes(const ProductShape& shape, int choice);

struct ProposedAlgorithms {
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  std::uint32_t schemes = 0;  // that they may have
};
/// The library's heuristics, best first, at most `most`; none where it has no algorithm. Throws Error.
ProposedAlgorithms proposed_algorithms(cublasLtHandle_t library, const ProductDescription& description,
                                       const ProductShape& shape, std::size_t workspace_bytes, int most);

/// The algorithm's configuration; none where the library does not tell all of it.
std::optional<ProductAlgorithm> configuration_of(const cublasLtMatmulAlgo_t& algorithm);

/// The algorithm with this configuration, checked by the library for this product and workspace. Where it refuses, `why` is its
/// reason and the result says nothing.
cublasLtMatmulAlgo_t algorithm_of(const ProductAlgorithm& configuration, cublasLtHandle_t library,
                                  const ProductDescription& description, const ProductShape& shape,
                                  std::size_t workspace_bytes, std::string& why);

}  // namespace vqlm::cuda
