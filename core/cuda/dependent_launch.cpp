#include "core/cuda/dependent_launch.h"

#include <algorithm>

#include "core/cuda/cuda_check.h"
#include "core/cuda/partial_sums.h"

namespace vqlm::cuda {

bool can_launch_dependents(int compute_capability) {
  constexpr int programmatic_edges = 12030;
  if (compute_capability < 90) return false;
  int driver = 0, runtime = 0;
  cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  cuda_check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return std::min(driver, runtime) >= programmatic_edges && kernels_wait();
}

}  // namespace vqlm::cuda
