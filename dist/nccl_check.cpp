#include "dist/nccl_check.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {
namespace {

std::string message(const std::string& call, int rank, const std::string& group, const std::string& text) {
  return fmt::format("{}: rank {} of group '{}': {}", call, rank, group, text);
}

std::string cuda_error_text(int code) {
  const auto error = static_cast<cudaError_t>(code);
  return fmt::format("CUDA: {}: {}", cudaGetErrorName(error), cudaGetErrorString(error));
}

void log_quietly(const char* call, int rank, const std::string& group, const std::string& text) noexcept {
  try {
    log::error("{}", message(call, rank, group, text));
  } catch (...) {  // a destructor has nobody to tell
  }
}

}  // namespace

std::string nccl_error_text(int code, ncclComm* comm) {
  const char* detail = ncclGetLastError(comm);
  const std::string_view more = detail != nullptr ? detail : "";
  return fmt::format("NCCL: {}{}{} (code {}; NCCL_DEBUG=WARN tells more)",
                     ncclGetErrorString(static_cast<ncclResult_t>(code)), more.empty() ? "" : ": ", more, code);
}

void nccl_check(int code, const std::string& call, int rank, const std::string& group, ncclComm* comm) {
  if (code != ncclSuccess) throw Error(message(call, rank, group, nccl_error_text(code, comm)));
}

void nccl_log_failure(int code, const char* call, int rank, const std::string& group) noexcept {
  if (code != ncclSuccess) log_quietly(call, rank, group, nccl_error_text(code, nullptr));
}

void nccl_cuda_check(int code, const char* call, int rank, const std::string& group) {
  if (code != cudaSuccess) throw Error(message(call, rank, group, cuda_error_text(code)));
}

void nccl_cuda_log_failure(int code, const char* call, int rank, const std::string& group) noexcept {
  if (code != cudaSuccess) log_quietly(call, rank, group, cuda_error_text(code));
}

}  // namespace vqlm
