#include "core/cuda/matmul_plans.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "core/error.h"

namespace vqlm::cuda {

struct MatmulPlans::Plan {
  ProductDescription description;
  cublasLtMatmulAlgo_t algorithm{};
  bool supported = false;
  bool chosen = false;
  std::int64_t calls = 0;
};

MatmulPlans::MatmulPlans(ProductMachine machine, std::size_t cache_bytes, cudaStream_t stream, void* workspace,
                         std::size_t workspace_bytes)
    : machine_(std::move(machine)),
      cache_bytes_(cache_bytes),
      stream_(stream),
      workspace_(workspace),
      workspace_bytes_(workspace_bytes) {
  cublas_check(cublasLtCreate(library_.out()), "cublasLtCreate");
  const std::size_t version = cublasLtGetVersion();
  machine_.library = fmt::format("cuBLASLt {}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

MatmulPlans::~MatmulPlans() = default;

std::size_t MatmulPlans::workspace_bytes(int compute_capability) {
  return std::size_t{compute_capability >= 90 ? 64u : 32u} << 20;
}

void MatmulPlans::settle(Plan& plan, const ProductShape& shape) const {
  const auto choice = choices_.find(shape);
  plan.chosen = choice != choices_.end();
  if (plan.chosen && choice->second) {
    std::string why;
    plan.algorithm = algorithm_of(*choice->second, library_.get(), plan.description, shape, workspace_bytes_, why);
    plan.supported = why.empty();
    if (plan.supported) return;
    throw Error(fmt::format(
        "{}: cuBLASLt refuses the algorithm for a product of {} ({}): {}; make the file anew by vqlm tune, or go without "
        "it (run.products_file)",
        origin_, shape.str(), choice->second->str(), why));
  }
  const auto own = first(plan.description, shape);
  plan.supported = own.has_value();
  if (own) plan.algorithm = *own;
}

std::optional<cublasLtMatmulAlgo_t> MatmulPlans::first(const ProductDescription& description,
                                                       const ProductShape& shape) const {
  const auto proposals = proposed_algorithms(library_.get(), description, shape, workspace_bytes_, 1);
  if (proposals.algorithms.empty()) return std::nullopt;
  return proposals.algorithms.front();
}

MatmulPlans::Plan& MatmulPlans::plan(const ProductShape& shape) {
  if (const auto known = plans_.find(shape); known != plans_.end()) return *known->second;
  auto made = std::unique_ptr<Plan>(new Plan{.description = ProductDescription(shape)});
  settle(*made, shape);
  return *plans_.emplace(shape, std::move(made)).first->second;
}

bool MatmulPlans::supports(const ProductShape& shape) {
  return plan(shape).supported;
}

void MatmulPlans::run(const ProductShape& shape, const void* a, const void* b, void* c) {
  Plan& planned = plan(shape);
  if (!planned.supported) throw Error(fmt::format("cuBLASLt: no algorithm for a product of {}", shape.str()));
  ++planned.calls;
  enqueue(planned.description, planned.algorithm, shape, a, b, c);
}

void MatmulPlans::enqueue(const ProductDescription& description, const cublasLtMatmulAlgo_t& algorithm,
                          const ProductShape& shape, const void* a, const void* b, void* c) const {
  const float alpha = 1, beta = shape.accumulate == Accumulate::yes ? 1.0f : 0.0f;
  cublas_check(cublasLtMatmul(library_.get(), description.product.get(), &alpha, b, description.first.get(), a,
                              description.second.get(), &beta, c, description.result.get(), c, description.result.get(),
                              &algorithm, workspace_, workspace_bytes_, stream_),
               "cublasLtMatmul");
}

void MatmulPlans::choose(ProductChoices choices, std::string origin) {
  plans_.clear();  // what is enqueued or recorded has no need of them
  choices_ = std::move(choices);
  origin_ = std::move(origin);
}

std::vector<ProductAlgorithms::Use> MatmulPlans::uses() const {
  std::vector<Use> uses;
  for (const auto& [shape, plan] : plans_) {
    if (plan->calls > 0) uses.push_back({shape, plan->calls, plan->chosen});
  }
  return uses;
}

ProductAlgorithms::Candidates MatmulPlans::candidates(const ProductShape& shape, int most) {
  const ProductDescription description(shape);
  const ProposedAlgorithms proposals = proposed_algorithms(library_.get(), description, shape, workspace_bytes_, most);
  Candidates result;
  for (const cublasLtMatmulAlgo_t& proposed : proposals.algorithms) {
    const std::optional<ProductAlgorithm> configuration = configuration_of(proposed);
    const bool allowed = configuration && (configuration->reduction_scheme & ~proposals.schemes) == 0;
    const bool taken = allowed && refusal(shape, *configuration).empty();
    if (!taken) ++result.refused;
    if (taken) {
      result.algorithms.emplace_back(configuration);
    } else if (result.algorithms.empty() && &proposed == proposals.algorithms.data()) {
      result.algorithms.emplace_back(std::nullopt);
    }
  }
  return result;
}

std::string MatmulPlans::refusal(const ProductShape& shape, const ProductAlgorithm& algorithm) {
  std::string why;
  static_cast<void>(algorithm_of(algorithm, library_.get(), ProductDescription(shape), shape, workspace_bytes_, why));
  return why;
}

ProductAlgorithms::Product MatmulPlans::prepare(const std::optional<ProductAlgorithm>& algorithm,
                                                const ProductShape& shape) {
  const auto description = std::make_shared<const ProductDescription>(shape);
  std::string why = "it has no algorithm";
  std::optional<cublasLtMatmulAlgo_t> taken = first(*description, shape);
  if (taken) why.clear();
  if (algorithm) taken = algorithm_of(*algorithm, library_.get(), *description, shape, workspace_bytes_, why);
  if (!why.empty()) throw Error(fmt::format("cuBLASLt refuses a product of {}: {}", shape.str(), why));
  return [this, description, shape, prepared = *taken](const void* a, const void* b, void* c) {
    enqueue(*description, prepared, shape, a, b, c);
  };
}

}  // namespace vqlm::cuda
