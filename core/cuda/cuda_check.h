// Every CUDA and cuBLAS call is checked; a failure is an Error that names the call and the place.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

namespace vqlm::cuda {

/// Throws Error "CUDA: <call at file:line>: <error name>: <text>" unless status is cudaSuccess.
void cuda_check(cudaError_t status, const char* call, std::source_location where = std::source_location::current());

/// For destructors, which must not throw: logs a failure.
void cuda_log_failure(cudaError_t status, const char* call) noexcept;

}  // namespace vqlm::cuda
