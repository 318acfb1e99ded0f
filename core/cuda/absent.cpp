// What the program finds in place of the CUDA back end where it is built without.
#include "core/cuda/cuda_backend.h"

namespace vqlm {
namespace {

[[noreturn]] void refuse() {
  throw Error(
      "device cuda: this vqlm was built without CUDA; use run.device = \"cpu\", or build where nvcc is "
      "found");
}

}  // namespace

bool cuda_built() {
  return false;
}

std::unique_ptr<Backend> make_cuda_backend(int /*device*/, DependentLaunch /*launch*/) {
  refuse();
}

int cuda_device_count() {
  return 0;
}

std::string why_no_cuda_device() {
  return "this vqlm was built without CUDA";
}

CudaVersions cuda_versions() {
  return {"none", "none", "none"};
}

CudaDevice cuda_device(int /*device*/) {
  refuse();
}

CudaMemory cuda_memory(int /*device*/) {
  refuse();
}

void reserve_cuda_memory(int /*device*/, std::size_t /*bytes*/) {
  refuse();
}

}  // namespace vqlm
