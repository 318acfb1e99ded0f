// What the stand-in knows of one communicator. Operations in streams share it, so that they outlive ncclCommAbort.
#pragma once

#include <mpi.h>
#include <nccl.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace nccl_standin {

struct Communicator {
  MPI_Comm mpi = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::string name;  // ncclConfig_t's commName
  int max_ctas = 0;  // its maxCTAs; 0: not said
  std::int64_t issued = 0;
  std::atomic<ncclResult_t> error = ncclSuccess;
  std::atomic<bool> aborted = false;

  /// Sets the asynchronous error, as NCCL's own threads do; the first one stays.
  void fail(ncclResult_t code, std::string text) {
    const std::lock_guard lock(mutex_);
    if (error.load() != ncclSuccess) return;
    message_ = std::move(text);
    error.store(code);
  }
  /// Of the error, for ncclGetLastError.
  const char* message() const {
    const std::lock_guard lock(mutex_);
    return message_.c_str();
  }

 private:
  mutable std::mutex mutex_;
  std::string message_;
};

}  // namespace nccl_standin

/// The handle that nccl.h leaves open.
struct ncclComm {
  std::shared_ptr<nccl_standin::Communicator> state;
};
