#include "core/cuda/cuda_backend.h"

namespace vqlm {

bool cuda_built() {
  return false;
}

std::unique_ptr<Backend> make_cuda_backend(int /*device*/) {
  throw Error("device cuda: this vqlm was built without CUDA; use run.device = \"cpu\"");
}

}  // namespace vqlm
