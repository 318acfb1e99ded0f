// Plans of matrix products: for each shape, layout, dtype and alignment that was seen, cuBLASLt's descriptors and the
// algorithm: the one that was chosen for it (ProductAlgorithms::choose), or the one that the library's heuristics put first.
// Not the fastest of several timed here and now: which one wins would differ from run to run, and with it the order of sums,
// but results must be the same in every run.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "core/cuda/cublaslt_objects.h"
#include "core/product_algorithms.h"

namespace vqlm::cuda {

class MatmulPlans final : public ProductAlgorithms {
 public:
  /// machine.library is found out here. `workspace` is for split-K sums; it and the stream must outlive the plans.
  MatmulPlans(ProductMachine machine, std::size_t cache_bytes, cudaStream_t stream, void* workspace,
              std::size_t workspace_bytes);
  ~MatmulPlans() override;
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

  /// Whether cuBLASLt has an algorithm for the shape. A shape's first call makes its plan (about 50 us of the host).
  bool supports(const ProductShape& shape);
  /// True once for each shape.
  bool not_yet_named(const ProductShape& shape) { return named_.insert(shape).second; }
  /// Enqueues the product. Throws Error, naming it, where there is no algorithm.
  void run(const ProductShape& shape, const void* a, const void* b, void* c);

  ProductMachine machine() const override { return machine_; }
  std::size_t cache_bytes() const override { return cache_bytes_; }
  void choose(ProductChoices choices, std::string origin) override;
  std::vector<Use> uses() const override;
  Candidates candidates(const ProductShape& shape, int most) override;
  std::string refusal(const ProductShape& shape, const ProductAlgorithm& algorithm) override;
  Product prepare(const std::optional<ProductAlgorithm>& algorithm, const ProductShape& shape) override;

  /// NVIDIA's advice for the workspace: 64 MiB from Hopper on, 32 MiB before, whose kernels split K less.
  static std::size_t workspace_bytes(int compute_capability);

 private:
  struct Plan;
  Plan& plan(const ProductShape& shape);
  /// Takes the chosen algorithm for the shape, or the library's first.
  void settle(Plan& plan, const ProductShape& shape) const;
  /// The library's first for the shape; nothing where it has none.
  std::optional<cublasLtMatmulAlgo_t> first(const ProductDescription& description, const ProductShape& shape) const;
  void enqueue(const ProductDescription& description, const cublasLtMatmulAlgo_t& algorithm, const ProductShape& shape,
               const void* a, const void* b, void* c) const;

  ProductMachine machine_;
  std::size_t cache_bytes_;
  cudaStream_t stream_;
  void* workspace_;
  std::size_t workspace_bytes_;
  CublasLibrary library_;
  ProductChoices choices_;
  std::string origin_;  // of choices_, for messages
  std::map<ProductShape, std::unique_ptr<Plan>> plans_;
  std::set<ProductShape> named_;  // in the log, for want of an algorithm
};

}  // namespace vqlm::cuda
