// NCCL's functions, the ones that vqlm calls, with the real header's prototypes, over MPI on host memory; work is queued
// on the executor's deferred streams. Unlike NCCL it compares the calls of all ranks and turns a mismatch into an
// asynchronous error. A function that is missing here is a link error. For tests only.
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "tests/nccl_standin/operation.h"
#include "tests/nccl_standin/reduce.h"
#include "tests/simt/streams.h"

namespace nccl_standin {
namespace {

struct Queued {
  Request request;
  cudaStream_t stream;
};

/// NCCL's groups belong to the calling thread, so this is what the C interface leaves no other place for.
struct GroupCalls {
  int depth = 0;
  std::vector<Queued> calls;
};
GroupCalls& group_calls() {
  thread_local GroupCalls calls;
  return calls;
}

std::byte* bytes(const void* data) {
  return static_cast<std::byte*>(const_cast<void*>(data));
}

ncclResult_t launch(Queued call) {
  const auto operation = std::make_shared<Operation>(std::move(call.request));
  const cudaError_t code = simt::enqueue(call.stream, [operation] { return operation->poll(); });
  return code == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

/// Point-to-point calls of a group on one communicator are one operation, as in NCCL, or they would wait for each other.
std::vector<Queued> fused(std::vector<Queued> calls) {
  std::vector<Queued> result;
  for (Queued& call : calls) {
    const auto is_partner = [&](const Queued& other) {
      return call.request.description.kind == Kind::point_to_point &&
             other.request.description.kind == Kind::point_to_point &&
             other.request.communicator == call.request.communicator && other.stream == call.stream &&
             other.request.description.dtype == call.request.description.dtype;
    };
    auto partner = result.begin();
    while (partner != result.end() && !is_partner(*partner)) ++partner;
    if (partner == result.end()) {
      result.push_back(std::move(call));
      continue;
    }
    for (const Transfer& send : call.request.sends) partner->request.sends.push_back(send);
    for (const Transfer& receive : call.request.receives) partner->request.receives.push_back(receive);
  }
  return result;
}

/// A rank's messages to itself are copies, the i-th send into the i-th receive.
void copy_own(const Request& request) {
  const int self = request.communicator->rank;
  auto receive = request.receives.begin();
  for (const Transfer& send : request.sends) {
    if (send.peer != self) continue;
    while (receive != request.receives.end() && receive->peer != self) ++receive;
    if (receive == request.receives.end()) return;
    std::memmove(receive->data, send.data, std::min(send.bytes, receive->bytes));
    ++receive;
  }
}

ncclResult_t launch_group(std::vector<Queued> calls) {
  for (Queued& call : fused(std::move(calls))) {
    call.request.description.sequence = ++call.request.communicator->issued;
    if (call.request.description.kind == Kind::point_to_point) {
      call.request.finish = [own = call.request] { copy_own(own); };
    }
    if (const ncclResult_t code = launch(std::move(call)); code != ncclSuccess) return code;
  }
  return ncclSuccess;
}

ncclResult_t submit(Request request, cudaStream_t stream) {
  if (const ncclResult_t error = request.communicator->error; error != ncclSuccess) return error;
  GroupCalls& group = group_calls();
  group.calls.push_back({std::move(request), stream});
  return group.depth > 0 ? ncclSuccess : launch_group(std::exchange(group.calls, {}));
}

Request make_request(ncclComm_t comm, Kind kind, std::size_t count, ncclDataType_t dtype, int op, int root) {
  Request request;
  request.communicator = comm->state;
  request.description.kind = kind;
  request.description.sent = request.description.expected = static_cast<std::int64_t>(count);
  request.description.dtype = dtype;
  request.description.op = op;
  request.description.root = root;
  request.finish = [] {};
  return request;
}

/// Every rank's n elements for this rank, from its block at `in`, are reduced into out when they have arrived.
void receive_and_reduce(Request& request, const void* own, void* out, std::size_t n, ncclDataType_t dtype,
                        ncclRedOp_t op) {
  const Communicator& group = *request.communicator;
  const std::size_t block = n * bytes_of(dtype);
  const auto received = std::make_shared<std::vector<std::byte>>(block * static_cast<std::size_t>(group.size));
  std::vector<const void*> blocks;
  for (int rank = 0; rank < group.size; ++rank) {
    std::byte* place = received->data() + block * static_cast<std::size_t>(rank);
    blocks.push_back(rank == group.rank ? own : place);
    if (rank != group.rank) request.receives.push_back({rank, place, block});
  }
  request.finish = [received, blocks, out, n, dtype, op] { reduce(out, blocks, n, dtype, op); };
}

/// NCCL_STANDIN_MAX_CTAS: what every communicator must have been limited to (0: not at all), or it is not made.
bool as_expected(const Communicator& communicator) {
  const char* expected = std::getenv("NCCL_STANDIN_MAX_CTAS");
  return expected == nullptr || std::atoi(expected) == communicator.max_ctas;
}

std::shared_ptr<Communicator> adopt(MPI_Comm mpi, const ncclConfig_t* config) {
  auto state = std::make_shared<Communicator>();
  state->mpi = mpi;
  if (config != nullptr && config->commName != nullptr) state->name = config->commName;
  if (config != nullptr && config->maxCTAs != NCCL_CONFIG_UNDEF_INT) {
    if (config->maxCTAs < 1 || config->maxCTAs > 64) return nullptr;
    state->max_ctas = config->maxCTAs;
  }
  if (!as_expected(*state)) return nullptr;
  const bool good = MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN) == MPI_SUCCESS &&
                    MPI_Comm_rank(mpi, &state->rank) == MPI_SUCCESS && MPI_Comm_size(mpi, &state->size) == MPI_SUCCESS;
  return good ? state : nullptr;
}

}  // namespace
}  // namespace nccl_standin

using namespace nccl_standin;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "internal error";
  }
}

const char* ncclGetLastError(ncclComm_t comm) {
  return comm != nullptr ? comm->state->message() : "";
}

// MPI knows the ranks already, so the id only has to be the same on all of them.
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 0x5a, sizeof *id);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  for (const char byte : id.internal) {
    if (byte != 0x5a) return ncclInvalidArgument;  // the id did not travel
  }
  MPI_Comm mpi = MPI_COMM_NULL;
  if (MPI_Comm_split(MPI_COMM_WORLD, 0, rank, &mpi) != MPI_SUCCESS) return ncclSystemError;
  auto state = adopt(mpi, config);
  if (state == nullptr) return ncclSystemError;
  if (state->size != size || state->rank != rank) return ncclInvalidArgument;  // other worlds are not needed here
  *comm = new ncclComm{std::move(state)};
  return ncclSuccess;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t* config) {
  MPI_Comm mpi = MPI_COMM_NULL;
  if (MPI_Comm_split(comm->state->mpi, color, key, &mpi) != MPI_SUCCESS) return ncclSystemError;
  auto state = adopt(mpi, config);
  if (state == nullptr) return ncclSystemError;
  *part = new ncclComm{std::move(state)};
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  comm->state->aborted = true;
  const int code = MPI_Comm_free(&comm->state->mpi);
  delete comm;
  return code == MPI_SUCCESS ? ncclSuccess : ncclSystemError;
}

// The MPI communicator stays: its messages may be on the way, and the caller is not the main thread.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->state->aborted = true;
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->state->error;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->state->rank;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->state->size;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group_calls().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  GroupCalls& group = group_calls();
  if (group.depth == 0) return ncclInvalidUsage;
  return --group.depth > 0 ? ncclSuccess : launch_group(std::exchange(group.calls, {}));
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t dtype, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  if (!can_reduce(dtype, op)) return ncclInvalidArgument;
  Request request = make_request(comm, Kind::all_reduce, count, dtype, op, 0);
  for (int peer = 0; peer < comm->state->size; ++peer) {
    request.sends.push_back({peer, bytes(in), count * bytes_of(dtype)});
  }
  receive_and_reduce(request, in, out, count, dtype, op);
  return submit(std::move(request), stream);
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t dtype, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  if (!can_reduce(dtype, op)) return ncclInvalidArgument;
  Request request = make_request(comm, Kind::reduce_scatter, count, dtype, op, 0);
  const std::size_t block = count * bytes_of(dtype);
  for (int peer = 0; peer < comm->state->size; ++peer) {
    request.sends.push_back({peer, bytes(in) + block * static_cast<std::size_t>(peer), block});
  }
  const std::byte* own = bytes(in) + block * static_cast<std::size_t>(comm->state->rank);
  receive_and_reduce(request, own, out, count, dtype, op);
  return submit(std::move(request), stream);
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t dtype, ncclComm_t comm,
                           cudaStream_t stream) {
  Request request = make_request(comm, Kind::all_gather, count, dtype, 0, 0);
  const std::size_t block = count * bytes_of(dtype);
  std::byte* own = bytes(out) + block * static_cast<std::size_t>(comm->state->rank);
  for (int peer = 0; peer < comm->state->size; ++peer) {
    request.sends.push_back({peer, bytes(in), block});
    request.receives.push_back({peer, bytes(out) + block * static_cast<std::size_t>(peer), block});
  }
  request.finish = [own, in, block] { std::memmove(own, in, block); };
  return submit(std::move(request), stream);
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t dtype, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  Request request = make_request(comm, Kind::broadcast, count, dtype, 0, root);
  const std::size_t size = count * bytes_of(dtype);
  if (comm->state->rank != root) {
    request.receives.push_back({root, bytes(out), size});
  } else {
    for (int peer = 0; peer < comm->state->size; ++peer) request.sends.push_back({peer, bytes(in), size});
    request.finish = [in, out, size] { std::memmove(out, in, size); };
  }
  return submit(std::move(request), stream);
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t dtype, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  Request request = make_request(comm, Kind::point_to_point, count, dtype, 0, 0);
  request.sends.push_back({peer, bytes(data), count * bytes_of(dtype)});
  return submit(std::move(request), stream);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t dtype, int peer, ncclComm_t comm, cudaStream_t stream) {
  Request request = make_request(comm, Kind::point_to_point, count, dtype, 0, 0);
  request.receives.push_back({peer, bytes(data), count * bytes_of(dtype)});
  return submit(std::move(request), stream);
}

}  // extern "C"
