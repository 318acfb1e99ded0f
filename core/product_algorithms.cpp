#include "core/product_algorithms.h"

#include <spdlog/fmt/fmt.h>

#include "core/backend.h"

namespace vqlm {

ProductAlgorithms* product_algorithms_of(Backend& backend) {
  auto* const choice = dynamic_cast<ChoiceOfProducts*>(&backend);
  return choice == nullptr ? nullptr : &choice->product_algorithms();
}

std::string ProductShape::str() const {
  return fmt::format("{} x {} x {} ({} to {}, {}rows of {} and {}, aligned to {}, {} and {} bytes)", m, n, k,
                     name_of(operands), name_of(result), accumulate == Accumulate::yes ? "added, " : "", leading_a,
                     leading_b, alignment_a, alignment_b, alignment_c);
}

std::string ProductAlgorithm::str() const {
  return fmt::format("id {}, tile {}, stages {}, split-K {}, reduction {}, swizzle {}, option {}, inner {}, cluster {}",
                     id, tile, stages, split_k, reduction_scheme, swizzle, custom_option, inner_shape, cluster_shape);
}

std::string ProductMachine::str() const {
  return fmt::format("{} ({}.{}, {} multiprocessors) with {}", device, compute_capability / 10, compute_capability % 10,
                     multiprocessors, library);
}

}  // namespace vqlm
