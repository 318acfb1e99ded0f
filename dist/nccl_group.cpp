#include "dist/nccl_group.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <spdlog/fmt/fmt.h>

#include <utility>

#include "core/error.h"

namespace vqlm {
namespace {

// How long an abort waits for a call of the main thread that is just handing work to NCCL.
constexpr std::chrono::seconds call_time{1};

}  // namespace

void NcclGroup::start() {
  int least = 0;
  int greatest = 0;
  cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest),
       "cudaStreamCreateWithPriority");
  cuda(cudaMalloc(&barrier_flag, sizeof(std::int32_t)), "cudaMalloc");
  cuda(cudaMemsetAsync(barrier_flag, 0, sizeof(std::int32_t), stream), "cudaMemsetAsync");
  watched = shared->watchdog->add_group({name, rank, size, [this] { return error(); }, [this] { abort(); }});
}

NcclGroup::~NcclGroup() {
  const bool healthy = std::uncaught_exceptions() <= exceptions_at_start && comm.load() != nullptr;
  // The watchdog still looks on: a peer that never comes ends the job here too.
  if (healthy && stream != nullptr) {
    nccl_cuda_log_failure(cudaStreamSynchronize(stream), "cudaStreamSynchronize", rank, name);
  }
  if (watched >= 0) shared->watchdog->remove_group(watched);
  if (const ncclComm_t left = comm.exchange(nullptr); left != nullptr) {
    nccl_log_failure(healthy ? ncclCommDestroy(left) : ncclCommAbort(left), "ncclCommDestroy", rank, name);
  }
  if (barrier_flag != nullptr) nccl_cuda_log_failure(cudaFree(barrier_flag), "cudaFree", rank, name);
  if (stream != nullptr) nccl_cuda_log_failure(cudaStreamDestroy(stream), "cudaStreamDestroy", rank, name);
}

/// From the watchdog's thread. The main thread may be stuck inside NCCL: then the abort is what frees it.
void NcclGroup::abort() {
  const std::unique_lock lock(calls, call_time);
  if (const ncclComm_t left = comm.exchange(nullptr); left != nullptr) {
    nccl_log_failure(ncclCommAbort(left), "ncclCommAbort", rank, name);
  }
}

std::string NcclGroup::error() const {
  const ncclComm_t watched_comm = comm;
  if (watched_comm == nullptr) return {};
  ncclResult_t state = ncclSuccess;
  const ncclResult_t code = ncclCommGetAsyncError(watched_comm, &state);
  if (code == ncclSuccess && (state == ncclSuccess || state == ncclInProgress)) return {};
  return nccl_error_text(code == ncclSuccess ? state : code, watched_comm);
}

/// Calls have been handed to NCCL: marks their end and tells the watchdog.
void NcclGroup::record(const std::vector<Call>& made, bool captured, const Event& done) {
  NcclEvents::record(done, own_stream());
  for (const Call& call : made) {
    std::function<bool()> reached;
    if (!captured) reached = [events = shared->events, done] { return events->reached(done); };
    shared->watchdog->begin(watched, call.collective, call.dtype, call.count, std::move(reached));
  }
}

bool NcclGroup::prepare(const Call& call, Stream caller) {
  VQLM_ASSERT(shared->grouping == nullptr || shared->grouping == this);
  shared->watchdog->throw_if_failed();
  if (call.count == 0) return false;
  const Event ready = shared->events->take();
  NcclEvents::record(ready, caller);
  NcclEvents::wait(own_stream(), ready);
  return true;
}

void NcclGroup::check_launch(int code, const Call& call) const {
  if (code == ncclSuccess) return;
  const std::int64_t sequence =
      shared->watchdog->next_sequence(watched) + static_cast<std::int64_t>(grouped.size());
  nccl_check(code, fmt::format("{} #{}", call.collective, sequence), rank, name, comm);
}

Event NcclGroup::launched(const Call& call, Stream caller) {
  if (shared->grouping == this) {
    grouped.push_back(call);
    return group_done;
  }
  const Event done = shared->events->take();
  record({call}, NcclEvents::capturing(caller), done);
  return done;
}

void NcclGroup::begin_calls() {
  VQLM_ASSERT(shared->grouping == nullptr);
  shared->watchdog->throw_if_failed();
  check(ncclGroupStart(), "ncclGroupStart");
  shared->grouping = this;
  group_done = shared->events->take();
}

void NcclGroup::end_calls() {
  VQLM_ASSERT(shared->grouping == this);
  shared->grouping = nullptr;
  {
    const std::lock_guard lock(calls);
    check(ncclGroupEnd(), "ncclGroupEnd");
  }
  const std::vector<Call> made = std::exchange(grouped, {});
  const Event done = std::exchange(group_done, Event());
  if (!made.empty()) record(made, NcclEvents::capturing(own_stream()), done);
}

}  // namespace vqlm
