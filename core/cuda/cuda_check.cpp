#include "core/cuda/cuda_check.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "core/log.h"

namespace vqlm::cuda {

void cuda_check(cudaError_t status, const char* call, std::source_location where) {
  if (status == cudaSuccess) return;
  // Takes the error off the thread, so that the next call's check speaks for itself; a broken context keeps failing.
  static_cast<void>(cudaGetLastError());
  throw Error(fmt::format("CUDA: {} at {}:{}: {}: {}", call, where.file_name(), where.line(), cudaGetErrorName(status),
                          cudaGetErrorString(status)));
}

void cuda_log_failure(cudaError_t status, const char* call) noexcept {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  log::error("CUDA: {}: {}: {}", call, cudaGetErrorName(status), cudaGetErrorString(status));
}

}  // namespace vqlm::cuda
