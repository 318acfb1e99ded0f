#include "dist/mpi_communicator.h"

#include <mpi.h>

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "dist/mpi_check.h"
#include "dist/rank_order_reduce.h"

namespace vqlm {
namespace {

// How often the thread beside the main one asks MPI. Between two asks at most what socket buffers hold moves, hundreds of
// KiB: 100 us are 12.5 KiB at 1 Gbit/s and 1.2 MiB at 100.
constexpr std::chrono::microseconds asks_every{100};

// All-reduces up to this size gather every rank's x and add it everywhere: one step instead of two.
constexpr std::int64_t small_all_reduce_bytes = 8 << 10;

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i32:
      return MPI_INT32_T;
    case DType::u8:
      return MPI_UINT8_T;
    case DType::bf16:  // moved, never reduced: reduce_in_rank_order refuses it
      return MPI_UINT16_T;
  }
  return MPI_DATATYPE_NULL;
}

std::byte* element(const Tensor& x, std::int64_t index) {
  return static_cast<std::byte*>(x.data()) + static_cast<std::size_t>(index) * size_of(x.dtype());
}

}  // namespace

struct MpiCommunicator::Group {
  MPI_Comm comm = MPI_COMM_NULL;
  std::string name;
  MpiChunking chunking;
  std::shared_ptr<RankActivity> activity;
  int rank = 0;
  int size = 1;
  std::vector<std::byte> scratch;
  MpiCaller caller = MpiCaller::main_thread;
  std::atomic<bool> abandoned = false;

  ~Group();
  void check(int code, const char* call) const { mpi_check(code, call, rank, name); }
  RankActivity::Inside enter(const char* call) const {
    if (caller == MpiCaller::thread_beside) return RankActivity::Inside(nullptr);
    return activity->enter(call, name);
  }
  Tensor scratch_blocks(std::int64_t count, DType dtype);
  void exchange(void* out, std::int64_t out_block, Tensor in, std::int64_t begin, std::int64_t count,
                const char* call) const;
  void reduce(Tensor out, Tensor received, Reduce op) const;
  void reduce_scatter(Tensor out, Tensor in, Reduce op, const char* call);
  void all_gather(Tensor out, Tensor in, const char* call) const;
  void finish(std::vector<MPI_Request>& requests, const char* call) const;
};

namespace {

// `count` elements with the extent of a block of `block` elements: a chunk of every rank's block, found by
// MPI at 64-bit strides, so that large blocks go in pieces without packing and without int displacements.
class StridedChunk {
 public:
  StridedChunk(DType dtype, std::int64_t count, std::int64_t block)
      : code_(MPI_Type_contiguous(static_cast<int>(count), mpi_type(dtype), &chunk_)) {
    const auto extent = static_cast<MPI_Aint>(static_cast<std::size_t>(block) * size_of(dtype));
    if (code_ == MPI_SUCCESS) code_ = MPI_Type_create_resized(chunk_, 0, extent, &strided_);
    if (code_ == MPI_SUCCESS) code_ = MPI_Type_commit(&strided_);
  }
  StridedChunk(const StridedChunk&) = delete;
  StridedChunk& operator=(const StridedChunk&) = delete;
  ~StridedChunk() {
    free(strided_);
    free(chunk_);
  }
  /// The return code of the construction, for the caller who knows the group's name.
  int code() const { return code_; }
  MPI_Datatype type() const { return strided_; }

 private:
  static void free(MPI_Datatype& type) {
    if (type != MPI_DATATYPE_NULL) mpi_log_failure(MPI_Type_free(&type), "MPI_Type_free", 0, "datatypes");
  }

  MPI_Datatype chunk_ = MPI_DATATYPE_NULL;
  MPI_Datatype strided_ = MPI_DATATYPE_NULL;
  int code_;
};

}  // namespace

MpiCommunicator::Group::~Group() {
  int finalized = 0;
  mpi_log_failure(MPI_Finalized(&finalized), "MPI_Finalized", rank, name);
  if (comm == MPI_COMM_NULL || finalized != 0) return;
  if (abandoned) {  // what it was given up in may still write here, and freeing it would wait for that
    new std::vector<std::byte>(std::move(scratch));
    return;
  }
  mpi_log_failure(MPI_Comm_free(&comm), "MPI_Comm_free", rank, name);
}

/// (size, count), kept between calls.
Tensor MpiCommunicator::Group::scratch_blocks(std::int64_t count, DType dtype) {
  const std::size_t bytes = static_cast<std::size_t>(size * count) * size_of(dtype);
  if (scratch.size() < bytes) scratch.resize(bytes);
  return Tensor(scratch.data(), dtype, {size, count});
}

/// Elements [begin, begin + count) of block p of in go to rank p; those of rank p arrive at out + p * out_block.
void MpiCommunicator::Group::exchange(void* out, std::int64_t out_block, Tensor in, std::int64_t begin,
                                      std::int64_t count, const char* call) const {
  const StridedChunk sent(in.dtype(), count, in.numel() / size);
  const StridedChunk received(in.dtype(), count, out_block);
  check(sent.code(), call);
  check(received.code(), call);
  if (caller == MpiCaller::main_thread) {
    check(MPI_Alltoall(element(in, begin), 1, sent.type(), out, 1, received.type(), comm), call);
    return;
  }
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Ialltoall(element(in, begin), 1, sent.type(), out, 1, received.type(), comm, &request), call);
  int done = 0;
  for (;;) {
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), call);
    if (done != 0) return;
    if (abandoned) throw Error(fmt::format("{} in group '{}' was given up", call, name));
    std::this_thread::sleep_for(asks_every);
  }
}

/// out (n): the reduction of received (size, n).
void MpiCommunicator::Group::reduce(Tensor out, Tensor received, Reduce op) const {
  std::vector<const void*> blocks;
  for (int p = 0; p < size; ++p) blocks.push_back(element(received, p * out.numel()));
  reduce_in_rank_order(out.data(), blocks, out.numel(), out.dtype(), op);
}

void MpiCommunicator::Group::reduce_scatter(Tensor out, Tensor in, Reduce op, const char* call) {
  const std::int64_t n = out.numel();
  const std::int64_t block_bytes = static_cast<std::int64_t>(size_of(in.dtype())) * size;
  const std::int64_t step =
      std::clamp<std::int64_t>(chunking.scratch_bytes / block_bytes, 1, chunking.elements_per_call);
  for (std::int64_t begin = 0; begin < n; begin += step) {
    const std::int64_t count = std::min(step, n - begin);
    const Tensor received = scratch_blocks(count, in.dtype());
    exchange(received.data(), count, in, begin, count, call);
    reduce(out.range(begin, count), received, op);
  }
}

void MpiCommunicator::Group::all_gather(Tensor out, Tensor in, const char* call) const {
  const std::int64_t n = in.numel();
  const bool in_place = in.data() == element(out, rank * n);
  for (std::int64_t begin = 0; begin < n; begin += chunking.elements_per_call) {
    const std::int64_t count = std::min(chunking.elements_per_call, n - begin);
    const StridedChunk chunk(out.dtype(), count, n);
    check(chunk.code(), call);
    check(MPI_Allgather(in_place ? MPI_IN_PLACE : element(in, begin), static_cast<int>(count), mpi_type(in.dtype()),
                        element(out, begin), 1, chunk.type(), comm),
          call);
  }
}

/// Waits for all, where one fails, too: none may touch the caller's memory later. The error is the first one.
void MpiCommunicator::Group::finish(std::vector<MPI_Request>& requests, const char* call) const {
  int code = MPI_SUCCESS;
  for (MPI_Request& request : requests) {
    const int of_one = MPI_Wait(&request, MPI_STATUS_IGNORE);
    if (code == MPI_SUCCESS) code = of_one;
  }
  check(code, call);
}

MpiCommunicator::MpiCommunicator(std::unique_ptr<Group> group) : group_(std::move(group)) {}
MpiCommunicator::~MpiCommunicator() = default;
int MpiCommunicator::rank() const {
  return group_->rank;
}
int MpiCommunicator::size() const {
  return group_->size;
}
const std::string& MpiCommunicator::name() const {
  return group_->name;
}

std::unique_ptr<MpiCommunicator> MpiCommunicator::split_world(int color, int key, std::string name,
                                                              std::shared_ptr<RankActivity> activity,
                                                              MpiChunking chunking, MpiCaller caller) {
  VQLM_ASSERT(chunking.elements_per_call >= 1 && chunking.elements_per_call <= INT_MAX && activity != nullptr);
  auto group = std::make_unique<Group>();
  group->name = std::move(name);
  group->chunking = chunking;
  group->activity = std::move(activity);
  group->caller = caller;
  const auto inside = group->activity->enter("split", group->name);
  group->check(MPI_Comm_split(MPI_COMM_WORLD, color, key, &group->comm), "MPI_Comm_split");
  group->check(MPI_Comm_set_errhandler(group->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  group->check(MPI_Comm_rank(group->comm, &group->rank), "MPI_Comm_rank");
  group->check(MPI_Comm_size(group->comm, &group->size), "MPI_Comm_size");
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(std::move(group)));
}

Event MpiCommunicator::all_reduce(Tensor x, Reduce op, Stream /*stream*/) {
  const auto inside = group_->enter("all_reduce");
  const int P = group_->size;
  const std::int64_t n = x.numel();
  const bool small = static_cast<std::int64_t>(x.bytes()) <= small_all_reduce_bytes;
  const std::int64_t block = small ? 0 : n / P;
  if (block > 0) {
    const Tensor head = x.range(0, P * block);
    const Tensor mine = head.range(group_->rank * block, block);
    group_->reduce_scatter(mine, head, op, "all_reduce");
    group_->all_gather(head, mine, "all_reduce");
  }
  if (const std::int64_t rest = n - P * block; rest > 0) {  // fewer than P elements, or a small x
    const Tensor tail = x.range(P * block, rest);
    const Tensor received = group_->scratch_blocks(rest, x.dtype());
    group_->all_gather(received, tail, "all_reduce");
    group_->reduce(tail, received, op);
  }
  return {};
}

Event MpiCommunicator::reduce_scatter(Tensor out, Tensor in, Reduce op, Stream /*stream*/) {
  const auto inside = group_->enter("reduce_scatter");
  VQLM_ASSERT(out.dtype() == in.dtype() && in.numel() == out.numel() * group_->size);
  group_->reduce_scatter(out, in, op, "reduce_scatter");
  return {};
}

Event MpiCommunicator::all_gather(Tensor out, Tensor in, Stream /*stream*/) {
  const auto inside = group_->enter("all_gather");
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel() * group_->size);
  group_->all_gather(out, in, "all_gather");
  return {};
}

Event MpiCommunicator::all_to_all(Tensor out, Tensor in, Stream /*stream*/) {
  const auto inside = group_->enter("all_to_all");
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel() && in.numel() % group_->size == 0);
  const std::int64_t n = in.numel() / group_->size;
  const std::int64_t step = group_->chunking.elements_per_call;
  for (std::int64_t begin = 0; begin < n; begin += step) {
    group_->exchange(element(out, begin), n, in, begin, std::min(step, n - begin), "all_to_all");
  }
  return {};
}

Event MpiCommunicator::all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                                    std::span<const std::int64_t> in_counts, Stream /*stream*/) {
  constexpr const char* call = "all_to_all_v";
  check_all_to_all_v(*this, out, out_counts, in, in_counts);
  const auto inside = group_->enter(call);
  std::vector<MPI_Request> requests;
  std::byte *own_in = nullptr, *own_out = nullptr;
  // In pieces of one MPI call, with every other rank.
  const auto in_pieces = [&](const Tensor& x, std::span<const std::int64_t> counts, std::byte*& own, auto start) {
    std::int64_t begin = 0;
    for (int peer = 0; peer < group_->size; ++peer) {
      const std::int64_t end = begin + counts[static_cast<std::size_t>(peer)];
      if (peer == group_->rank) own = element(x, begin);
      for (; begin < end && peer != group_->rank; begin += std::min(group_->chunking.elements_per_call, end - begin)) {
        const auto count = static_cast<int>(std::min(group_->chunking.elements_per_call, end - begin));
        requests.push_back(MPI_REQUEST_NULL);
        group_->check(start(element(x, begin), count, peer, &requests.back()), call);
      }
      begin = end;
    }
  };
  in_pieces(out, out_counts, own_out, [&](void* data, int count, int peer, MPI_Request* request) {
    return MPI_Irecv(data, count, mpi_type(out.dtype()), peer, 0, group_->comm, request);
  });
  in_pieces(in, in_counts, own_in, [&](const void* data, int count, int peer, MPI_Request* request) {
    return MPI_Isend(data, count, mpi_type(in.dtype()), peer, 0, group_->comm, request);
  });
  const std::int64_t own = in_counts[static_cast<std::size_t>(group_->rank)];
  if (own > 0) std::memcpy(own_out, own_in, static_cast<std::size_t>(own) * size_of(in.dtype()));
  group_->finish(requests, call);
  return {};
}

Event MpiCommunicator::broadcast(Tensor x, int root, Stream /*stream*/) {
  const auto inside = group_->enter("broadcast");
  VQLM_ASSERT(root >= 0 && root < group_->size);
  const std::int64_t step = group_->chunking.elements_per_call;
  for (std::int64_t begin = 0; begin < x.numel(); begin += step) {
    const auto count = static_cast<int>(std::min(step, x.numel() - begin));
    group_->check(MPI_Bcast(element(x, begin), count, mpi_type(x.dtype()), root, group_->comm), "broadcast");
  }
  return {};
}

void MpiCommunicator::barrier() {
  const auto inside = group_->enter("barrier");
  group_->check(MPI_Barrier(group_->comm), "barrier");
}

std::shared_ptr<void> MpiCommunicator::expect_long_wait(const std::string& why) {
  return group_->activity->pause(why);
}

std::shared_ptr<void> MpiCommunicator::inside(std::string_view collective) {
  return std::shared_ptr<void>(new RankActivity::Inside(group_->activity->enter(collective, group_->name)));
}

void MpiCommunicator::abandon() {
  group_->abandoned = true;
}

void MpiCommunicator::begin_step(std::int64_t step) {
  group_->activity->begin_step(step);
}

}  // namespace vqlm
