// NCCL's functions in use, forwarded to libnccl.so.2, which is opened at the first call: the program starts where NCCL is
// not installed (a laptop, one GPU, the CPU back end), and other starts save the 10 ms that its 218 MB take. The tests'
// stand-in has its own definitions of these functions in place of this file.
#include <nccl.h>

#include "core/foreign_library.h"

namespace {

const vqlm::ForeignLibrary& library() {
  // The loader's own search first (LD_LIBRARY_PATH, ldconfig), then the library that the program was built with.
  static const vqlm::ForeignLibrary opened({"libnccl.so.2", VQLM_NCCL_LIBRARY},
                                           "the ranks of a job talk through it between GPUs: install NCCL "
                                           "2.26 or later, or add its folder to LD_LIBRARY_PATH, "
                                           "or start one rank, or use --device cpu");
  return opened;
}

}  // namespace

// One lookup for each function, at its first call.
#define VQLM_FORWARD(function, ...)                                       \
  static auto* const of_library = library().find(&::function, #function); \
  return of_library(__VA_ARGS__)

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  VQLM_FORWARD(ncclGetVersion, version);
}

const char* ncclGetErrorString(ncclResult_t result) {
  VQLM_FORWARD(ncclGetErrorString, result);
}

const char* ncclGetLastError(ncclComm_t comm) {
  VQLM_FORWARD(ncclGetLastError, comm);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  VQLM_FORWARD(ncclGetUniqueId, id);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  VQLM_FORWARD(ncclCommInitRankConfig, comm, size, id, rank, config);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t* config) {
  VQLM_FORWARD(ncclCommSplit, comm, color, key, part, config);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  VQLM_FORWARD(ncclCommDestroy, comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  VQLM_FORWARD(ncclCommAbort, comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  VQLM_FORWARD(ncclCommGetAsyncError, comm, error);
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  VQLM_FORWARD(ncclCommUserRank, comm, rank);
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  VQLM_FORWARD(ncclCommCount, comm, count);
}

ncclResult_t ncclGroupStart() {
  VQLM_FORWARD(ncclGroupStart);
}

ncclResult_t ncclGroupEnd() {
  VQLM_FORWARD(ncclGroupEnd);
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t dtype, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  VQLM_FORWARD(ncclAllReduce, in, out, count, dtype, op, comm, stream);
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t dtype, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  VQLM_FORWARD(ncclReduceScatter, in, out, count, dtype, op, comm, stream);
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t dtype, ncclComm_t comm,
                           cudaStream_t stream) {
  VQLM_FORWARD(ncclAllGather, in, out, count, dtype, comm, stream);
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t dtype, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  VQLM_FORWARD(ncclBroadcast, in, out, count, dtype, root, comm, stream);
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t dtype, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  VQLM_FORWARD(ncclSend, data, count, dtype, peer, comm, stream);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t dtype, int peer, ncclComm_t comm, cudaStream_t stream) {
  VQLM_FORWARD(ncclRecv, data, count, dtype, peer, comm, stream);
}

}  // extern "C"
