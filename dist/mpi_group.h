// What MpiCommunicator keeps, and the steps of collectives that call MPI. Knows MPI's types in mpi_group.cpp alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/mpi_check.h"
#include "dist/mpi_communicator.h"

namespace vqlm {

/// Where x's element `index` lies.
inline std::byte* mpi_buffer(const Tensor& x, std::int64_t index) {
  return static_cast<std::byte*>(x.data()) + static_cast<std::size_t>(index) * size_of(x.dtype());
}

struct MpiCommunicator::Group {
  struct Handle;  // the MPI_Comm
  std::unique_ptr<Handle> handle;
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

  Group();
  ~Group();
  /// Makes the group: collective over the world.
  void split(int color, int key);
  void check(int code, const char* call) const { mpi_check(code, call, rank, name); }
  RankActivity::Inside enter(const char* call) const {
    VQLM_ASSERT(caller == MpiCaller::main_thread);
    return activity->enter(call, name);
  }
  Tensor scratch_blocks(std::int64_t count, DType dtype);
  /// Elements of a rank that scratch_blocks() holds in scratch_bytes.
  std::int64_t most_in_scratch(DType dtype) const;
  void exchange_beside(void* out, Tensor in, std::int64_t begin, std::int64_t count, const char* call);
  void exchange(void* out, std::int64_t out_block, Tensor in, std::int64_t begin, std::int64_t count,
                const char* call) const;
  void reduce(Tensor out, Tensor received, Reduce op) const;
  void reduce_scatter(Tensor out, Tensor in, Reduce op, const char* call);
  void all_gather(Tensor out, Tensor in, const char* call) const;
  void all_gather_beside(Tensor out, Tensor in, const char* call);
  void all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                    std::span<const std::int64_t> in_counts, const char* call) const;
  void broadcast(Tensor x, int root, const char* call) const;
  void barrier(const char* call) const;
};

}  // namespace vqlm
