#include "tests/nccl_standin/operation.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/nccl_standin/faults.h"

namespace nccl_standin {
namespace {

// Both kinds of message of a call have tags of their own, from the call's number, so that calls of one communicator on
// several streams cannot take each other's messages. Replays of a recorded call use its tags again, in order.
int tag_of(const Description& description, int part) {
  return static_cast<int>(description.sequence % (1 << 20)) * 2 + part;
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::all_reduce:
      return "ncclAllReduce";
    case Kind::reduce_scatter:
      return "ncclReduceScatter";
    case Kind::all_gather:
      return "ncclAllGather";
    case Kind::broadcast:
      return "ncclBroadcast";
    case Kind::point_to_point:
      return "ncclSend/ncclRecv";
  }
  return "?";
}

std::string text_of(int rank, const Description& call) {
  return "rank " + std::to_string(rank) + " called " + name_of(call.kind) + " (call " + std::to_string(call.sequence) +
         ", sends " + std::to_string(call.sent) + ", expects " + std::to_string(call.expected) + ", dtype " +
         std::to_string(call.dtype) + ", op " + std::to_string(call.op) + ", root " + std::to_string(call.root) + ")";
}

bool agree(const Description& mine, const Description& theirs) {
  return mine.kind == theirs.kind && mine.sequence == theirs.sequence && mine.dtype == theirs.dtype &&
         mine.op == theirs.op && mine.root == theirs.root && mine.sent == theirs.expected &&
         mine.expected == theirs.sent;
}

bool is_named(const Request& request, int peer) {
  const auto by = [&](const Transfer& transfer) { return transfer.peer == peer; };
  return std::ranges::any_of(request.sends, by) || std::ranges::any_of(request.receives, by);
}

std::int64_t elements_for(const std::vector<Transfer>& transfers, int peer, std::size_t element) {
  std::size_t bytes = 0;
  for (const Transfer& transfer : transfers) bytes += transfer.peer == peer ? transfer.bytes : 0;
  return static_cast<std::int64_t>(bytes / element);
}

}  // namespace

std::size_t bytes_of(ncclDataType_t dtype) {
  switch (dtype) {
    case ncclUint8:
      return 1;
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclFloat32:
      return 4;
    case ncclFloat64:
      return 8;
    default:
      return 0;
  }
}

std::size_t chunk_bytes() {
  const char* text = std::getenv("NCCL_STANDIN_CHUNK_BYTES");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : std::size_t{1} << 30;
}

bool Operation::poll() {
  int on_main_thread = 0;
  MPI_Is_thread_main(&on_main_thread);
  if (on_main_thread == 0) {
    std::fprintf(stderr, "nccl_standin: a stream runs outside the main thread, which alone may call MPI\n");
    std::abort();
  }
  if (request_.communicator->aborted) return true;
  if (request_.communicator->error != ncclSuccess) return false;  // NCCL's kernel hangs, too, until the abort
  if (state_ == State::idle) {
    if (injected_fault(*request_.communicator, request_.description.sequence)) return false;
    describe();
    state_ = State::describing;
  }
  if (!requests_done()) return false;
  if (state_ == State::describing) {
    if (!descriptions_agree()) return false;
    transfer();
    state_ = State::transferring;
    if (!requests_done()) return false;
  }
  request_.finish();
  state_ = State::idle;
  return true;
}

/// Collectives describe the call to every other rank, point-to-point calls to those that they name.
void Operation::describe() {
  const Communicator& group = *request_.communicator;
  const std::size_t element = bytes_of(static_cast<ncclDataType_t>(request_.description.dtype));
  peers_.clear();
  for (int rank = 0; rank < group.size; ++rank) {
    if (rank == group.rank) continue;
    Peer peer{rank, request_.description, {}};
    if (peer.mine.kind == Kind::point_to_point) {
      peer.mine.sent = elements_for(request_.sends, rank, element);
      peer.mine.expected = elements_for(request_.receives, rank, element);
      if (!is_named(request_, rank)) continue;
    }
    peers_.push_back(peer);
  }
  const int tag = tag_of(request_.description, 0);
  for (Peer& peer : peers_) {
    pending_.emplace_back();
    check(MPI_Irecv(&peer.theirs, sizeof peer.theirs, MPI_BYTE, peer.rank, tag, group.mpi, &pending_.back()),
          "MPI_Irecv");
    pending_.emplace_back();
    check(MPI_Isend(&peer.mine, sizeof peer.mine, MPI_BYTE, peer.rank, tag, group.mpi, &pending_.back()), "MPI_Isend");
  }
}

bool Operation::descriptions_agree() {
  for (const Peer& peer : peers_) {
    if (agree(peer.mine, peer.theirs)) continue;
    request_.communicator->fail(ncclInvalidUsage,
                                "mismatched calls: " + text_of(request_.communicator->rank, peer.mine) + ", " +
                                    text_of(peer.rank, peer.theirs));
    return false;
  }
  return true;
}

void Operation::transfer() {
  const Communicator& group = *request_.communicator;
  const int tag = tag_of(request_.description, 1);
  const std::size_t chunk = chunk_bytes();
  const auto in_chunks = [&](const Transfer& transfer, auto call) {
    for (std::size_t begin = 0; begin < transfer.bytes && transfer.peer != group.rank; begin += chunk) {
      pending_.emplace_back();
      call(transfer.data + begin, static_cast<int>(std::min(chunk, transfer.bytes - begin)), transfer.peer);
    }
  };
  for (const Transfer& receive : request_.receives) {
    in_chunks(receive, [&](std::byte* data, int bytes, int peer) {
      check(MPI_Irecv(data, bytes, MPI_BYTE, peer, tag, group.mpi, &pending_.back()), "MPI_Irecv");
    });
  }
  for (const Transfer& send : request_.sends) {
    in_chunks(send, [&](std::byte* data, int bytes, int peer) {
      check(MPI_Isend(data, bytes, MPI_BYTE, peer, tag, group.mpi, &pending_.back()), "MPI_Isend");
    });
  }
}

bool Operation::requests_done() {
  int done = 0;
  check(MPI_Testall(static_cast<int>(pending_.size()), pending_.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
  if (done != 0) {
    pending_.clear();
  } else {
    std::this_thread::yield();  // tests run more ranks than there are cores
  }
  return done != 0;
}

void Operation::check(int code, const char* call) {
  if (code != MPI_SUCCESS) request_.communicator->fail(ncclSystemError, std::string(call) + " failed");
}

}  // namespace nccl_standin
