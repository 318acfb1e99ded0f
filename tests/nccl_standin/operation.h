// One collective, or all point-to-point calls of one group, as an exchange of messages with every other rank that takes
// part: first a description of the call, which both sides compare, then the data. Nonblocking, so that a stream may
// poll it while others go on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/nccl_standin/communicator.h"

namespace nccl_standin {

enum class Kind : std::int32_t { all_reduce, reduce_scatter, all_gather, broadcast, point_to_point };

/// The call as it travels. Point to point: sent and expected are the elements for and from the receiver of this.
struct Description {
  std::int64_t sequence = 0;
  std::int64_t sent = 0;
  std::int64_t expected = 0;
  Kind kind = Kind::all_reduce;
  std::int32_t dtype = 0;
  std::int32_t op = 0;
  std::int32_t root = 0;
};

struct Transfer {
  int peer = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};

/// What a call asks for. finish() runs when all transfers are done.
struct Request {
  std::shared_ptr<Communicator> communicator;
  Description description;
  std::vector<Transfer> sends;
  std::vector<Transfer> receives;
  std::function<void()> finish;
};

class Operation {
 public:
  explicit Operation(Request request) : request_(std::move(request)) {}

  /// For simt::enqueue: true when finished, or when the communicator was aborted; then it may start again.
  bool poll();

 private:
  enum class State { idle, describing, transferring };
  struct Peer {
    int rank = 0;
    Description mine;
    Description theirs;
  };

  void describe();
  bool descriptions_agree();
  void transfer();
  bool requests_done();
  void check(int code, const char* call);

  Request request_;
  State state_ = State::idle;
  std::vector<Peer> peers_;
  std::vector<MPI_Request> pending_;
};

std::size_t bytes_of(ncclDataType_t dtype);
/// Bytes of one MPI message; NCCL_STANDIN_CHUNK_BYTES shrinks them in tests.
std::size_t chunk_bytes();

}  // namespace nccl_standin
