// What MpiCommunicator keeps: the MPI_Comm and the steps of collectives that need MPI's types.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dist/mpi_check.h"
#include "dist/mpi_communicator.h"

namespace vqlm {

MPI_Datatype mpi_type(DType dtype);

/// Where x's element `index` lies.
inline std::byte* mpi_buffer(const Tensor& x, std::int64_t index) {
  return static_cast<std::byte*>(x.data()) + static_cast<std::size_t>(index) * size_of(x.dtype());
}

struct MpiCommunicator::Group {
  MPI_Comm comm = MPI_COMM_NULL;
  std::string name;
  MpiChunking chunking;
  std::shared_ptr<RankActivity> activity;
  int rank = 0;
  int size = 1;
  std::vector<std::byte> scratch;
  std::vector<std::byte> sent_scratch;  // of the thread beside the main one
  MpiCaller caller = MpiCaller::main_thread;
  std::atomic<bool> abandoned = false;
  std::atomic<bool> awaited = false;  // by the main thread

  ~Group();
  void check(int code, const char* call) const { mpi_check(code, call, rank, name); }
  RankActivity::Inside enter(const char* call) const {
    VQLM_ASSERT(caller == MpiCaller::main_thread);
    return activity->enter(call, name);
  }
  Tensor scratch_blocks(std::int64_t count, DType dtype);
  void exchange_beside(void* out, Tensor in, std::int64_t begin, std::int64_t count, const char* call);
  void exchange(void* out, std::int64_t out_block, Tensor in, std::int64_t begin, std::int64_t count,
                const char* call) const;
  void reduce(Tensor out, Tensor received, Reduce op) const;
  void reduce_scatter(Tensor out, Tensor in, Reduce op, const char* call);
  void all_gather(Tensor out, Tensor in, const char* call) const;
  void finish(std::vector<MPI_Request>& requests, const char* call) const;
};

}  // namespace vqlm
