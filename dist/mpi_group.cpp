#include "dist/mpi_group.h"

#include <mpi.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "core/error.h"
#include "dist/rank_order_reduce.h"

namespace vqlm {
namespace {

// How often the thread beside the main one asks MPI. Between two asks at most what socket buffers hold moves, hundreds of
// KiB: 100 us are 12.5 KiB at 1 Gbit/s and 1.2 MiB at 100.
constexpr std::chrono::microseconds asks_every{100};

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

/// Until the call of the thread beside the main one is done. Throws Error where it is given up. (The group's type is private.)
template <class Group>
void wait_beside(const Group& group, MPI_Request& request, const char* call) {
  for (int done = 0;;) {
    group.check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), call);
    if (done != 0) return;
    if (group.abandoned) throw Error(fmt::format("{} in group '{}' was given up", call, group.name));
    if (group.awaited) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(asks_every);
    }
  }
}

}  // namespace

struct MpiCommunicator::Group::Handle {
  MPI_Comm comm = MPI_COMM_NULL;
};

MpiCommunicator::Group::Group() : handle(std::make_unique<Handle>()) {}

MpiCommunicator::Group::~Group() {
  int finalized = 0;
  mpi_log_failure(MPI_Finalized(&finalized), "MPI_Finalized", rank, name);
  if (handle->comm == MPI_COMM_NULL || finalized != 0) return;
  if (abandoned) {  // what it was given up in may still write here, and freeing it would wait for that
    new std::vector<std::byte>(std::move(scratch));
    new std::vector<std::byte>(std::move(sent_scratch));
    return;
  }
  mpi_log_failure(MPI_Comm_free(&handle->comm), "MPI_Comm_free", rank, name);
}

void MpiCommunicator::Group::split(int color, int key) {
  check(MPI_Comm_split(MPI_COMM_WORLD, color, key, &handle->comm), "MPI_Comm_split");
  check(MPI_Comm_set_errhandler(handle->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(handle->comm, &rank), "MPI_Comm_rank");
  check(MPI_Comm_size(handle->comm, &size), "MPI_Comm_size");
}

/// (size, count), kept between calls.
Tensor MpiCommunicator::Group::scratch_blocks(std::int64_t count, DType dtype) {
  const std::size_t bytes = static_cast<std::size_t>(size * count) * size_of(dtype);
  if (scratch.size() < bytes) scratch.resize(bytes);
  return Tensor(scratch.data(), dtype, {size, count});
}

std::int64_t MpiCommunicator::Group::most_in_scratch(DType dtype) const {
  const std::int64_t block_bytes = static_cast<std::int64_t>(size_of(dtype)) * size;
  return std::clamp<std::int64_t>(chunking.scratch_bytes / block_bytes, 1, chunking.elements_per_call);
}

/// Elements [begin, begin + count) of block p of in go to rank p; those of rank p arrive at out + p * out_block.
void MpiCommunicator::Group::exchange(void* out, std::int64_t out_block, Tensor in, std::int64_t begin,
                                      std::int64_t count, const char* call) const {
  const StridedChunk sent(in.dtype(), count, in.numel() / size);
  const StridedChunk received(in.dtype(), count, out_block);
  check(sent.code(), call);
  check(received.code(), call);
  check(MPI_Alltoall(mpi_buffer(in, begin), 1, sent.type(), out, 1, received.type(), handle->comm), call);
}

/// exchange() of the thread beside the main one, to blocks of `count`. What is sent is copied first, so that a reduction
/// that is given up reads nothing of its caller's: MPI may go on with it.
void MpiCommunicator::Group::exchange_beside(void* out, Tensor in, std::int64_t begin, std::int64_t count,
                                             const char* call) {
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(in.dtype());
  const std::int64_t block = in.numel() / size;
  sent_scratch.resize(std::max(sent_scratch.size(), bytes * static_cast<std::size_t>(size)));
  for (int p = 0; p < size; ++p) {
    std::memcpy(sent_scratch.data() + static_cast<std::size_t>(p) * bytes, mpi_buffer(in, p * block + begin), bytes);
  }
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Ialltoall(sent_scratch.data(), static_cast<int>(count), mpi_type(in.dtype()), out, static_cast<int>(count),
                      mpi_type(in.dtype()), handle->comm, &request),
        call);
  wait_beside(*this, request, call);
}

/// out (n): the reduction of received (size, n).
void MpiCommunicator::Group::reduce(Tensor out, Tensor received, Reduce op) const {
  std::vector<const void*> blocks;
  for (int p = 0; p < size; ++p) blocks.push_back(mpi_buffer(received, p * out.numel()));
  reduce_in_rank_order(out.data(), blocks, out.numel(), out.dtype(), op);
}

void MpiCommunicator::Group::reduce_scatter(Tensor out, Tensor in, Reduce op, const char* call) {
  const std::int64_t n = out.numel(), step = most_in_scratch(in.dtype());
  for (std::int64_t begin = 0; begin < n; begin += step) {
    const std::int64_t count = std::min(step, n - begin);
    const Tensor received = scratch_blocks(count, in.dtype());
    if (caller == MpiCaller::thread_beside) {
      exchange_beside(received.data(), in, begin, count, call);
    } else {
      exchange(received.data(), count, in, begin, count, call);
    }
    reduce(out.range(begin, count), received, op);
  }
}

void MpiCommunicator::Group::all_gather(Tensor out, Tensor in, const char* call) const {
  const std::int64_t n = in.numel();
  const bool in_place = in.data() == mpi_buffer(out, rank * n);
  for (std::int64_t begin = 0; begin < n; begin += chunking.elements_per_call) {
    const std::int64_t count = std::min(chunking.elements_per_call, n - begin);
    const StridedChunk chunk(out.dtype(), count, n);
    check(chunk.code(), call);
    check(MPI_Allgather(in_place ? MPI_IN_PLACE : mpi_buffer(in, begin), static_cast<int>(count), mpi_type(in.dtype()),
                        mpi_buffer(out, begin), 1, chunk.type(), handle->comm),
          call);
  }
}

/// all_gather() of the thread beside the main one. MPI reads and writes memory of the group's alone, as exchange_beside() says.
void MpiCommunicator::Group::all_gather_beside(Tensor out, Tensor in, const char* call) {
  const std::int64_t n = in.numel(), step = most_in_scratch(in.dtype());
  for (std::int64_t begin = 0; begin < n; begin += step) {
    const std::int64_t count = std::min(step, n - begin);
    const Tensor received = scratch_blocks(count, in.dtype());
    const std::size_t bytes = static_cast<std::size_t>(count) * size_of(in.dtype());
    sent_scratch.resize(std::max(sent_scratch.size(), bytes));
    std::memcpy(sent_scratch.data(), mpi_buffer(in, begin), bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallgather(sent_scratch.data(), static_cast<int>(count), mpi_type(in.dtype()), received.data(),
                         static_cast<int>(count), mpi_type(in.dtype()), handle->comm, &request),
          call);
    wait_beside(*this, request, call);
    for (int p = 0; p < size; ++p) std::memcpy(mpi_buffer(out, p * n + begin), mpi_buffer(received, p * count), bytes);
  }
}

void MpiCommunicator::Group::all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                                          std::span<const std::int64_t> in_counts, const char* call) const {
  std::vector<MPI_Request> requests;
  std::byte *own_in = nullptr, *own_out = nullptr;
  // In pieces of one MPI call, with every other rank.
  const auto in_pieces = [&](const Tensor& x, std::span<const std::int64_t> counts, std::byte*& own, auto start) {
    std::int64_t begin = 0;
    for (int peer = 0; peer < size; ++peer) {
      const std::int64_t end = begin + counts[static_cast<std::size_t>(peer)];
      if (peer == rank) own = mpi_buffer(x, begin);
      for (; begin < end && peer != rank; begin += std::min(chunking.elements_per_call, end - begin)) {
        const auto count = static_cast<int>(std::min(chunking.elements_per_call, end - begin));
        requests.push_back(MPI_REQUEST_NULL);
        check(start(mpi_buffer(x, begin), count, peer, &requests.back()), call);
      }
      begin = end;
    }
  };
  in_pieces(out, out_counts, own_out, [&](void* data, int count, int peer, MPI_Request* request) {
    return MPI_Irecv(data, count, mpi_type(out.dtype()), peer, 0, handle->comm, request);
  });
  in_pieces(in, in_counts, own_in, [&](const void* data, int count, int peer, MPI_Request* request) {
    return MPI_Isend(data, count, mpi_type(in.dtype()), peer, 0, handle->comm, request);
  });
  const std::int64_t own = in_counts[static_cast<std::size_t>(rank)];
  if (own > 0) std::memcpy(own_out, own_in, static_cast<std::size_t>(own) * size_of(in.dtype()));
  // All, where one fails, too: none may touch the caller's memory later. The error is the first one.
  int code = MPI_SUCCESS;
  for (MPI_Request& request : requests) {
    const int of_one = MPI_Wait(&request, MPI_STATUS_IGNORE);
    if (code == MPI_SUCCESS) code = of_one;
  }
  check(code, call);
}

void MpiCommunicator::Group::broadcast(Tensor x, int root, const char* call) const {
  const std::int64_t step = chunking.elements_per_call;
  for (std::int64_t begin = 0; begin < x.numel(); begin += step) {
    const auto count = static_cast<int>(std::min(step, x.numel() - begin));
    check(MPI_Bcast(mpi_buffer(x, begin), count, mpi_type(x.dtype()), root, handle->comm), call);
  }
}

void MpiCommunicator::Group::barrier(const char* call) const {
  check(MPI_Barrier(handle->comm), call);
}

}  // namespace vqlm
