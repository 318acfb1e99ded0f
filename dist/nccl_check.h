// The checks of NCCL's and CUDA's return codes, which name the group. Codes are ints here, so that only .cpp files
// include the libraries' headers.
#pragma once

#include <string>

struct ncclComm;

namespace vqlm {

/// Throws Error "<call>: rank <rank> of group <group>: <NCCL's words>" where `code` (ncclResult_t) is not ncclSuccess;
/// `comm`, where there is one, knows more about it.
void nccl_check(int code, const std::string& call, int rank, const std::string& group, ncclComm* comm = nullptr);
/// What nccl_check throws, for an asynchronous error.
std::string nccl_error_text(int code, ncclComm* comm);
/// For destructors, which must not throw: logs instead.
void nccl_log_failure(int code, const char* call, int rank, const std::string& group) noexcept;

/// The same for a cudaError_t.
void nccl_cuda_check(int code, const char* call, int rank, const std::string& group);
void nccl_cuda_log_failure(int code, const char* call, int rank, const std::string& group) noexcept;

}  // namespace vqlm
