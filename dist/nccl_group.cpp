#include "dist/nccl_group.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <spdlog/fmt/fmt.h>

#include <thread>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {
namespace {

// How long an abort waits for a call of the main thread that is just handing work to NCCL.
constexpr std::chrono::seconds call_time{1};

}  // namespace

void NcclRank::abort_all() {
  std::vector<std::jthread> aborts;
  for (NcclGroup* group : groups) aborts.emplace_back([group] { group->abort(); });
}

void NcclGroup::start() {
  shared->groups.push_back(this);
  int least = 0;
  int greatest = 0;
  cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "cudaStreamCreateWithPriority");
  cuda(cudaMalloc(&barrier_flag, sizeof(std::int32_t)), "cudaMalloc");
  cuda(cudaMemsetAsync(barrier_flag, 0, sizeof(std::int32_t), stream), "cudaMemsetAsync");
  watched = shared->watchdog->add_group({name, rank, size, [this] { return error(); }, [this] { abort(); }});
}

NcclGroup::~NcclGroup() {
  const bool healthy = std::uncaught_exceptions() <= exceptions_at_start && comm.load() != nullptr;
  if (healthy) VQLM_ASSERT(!captured());  // a graph that outlives its communicator
  // The watchdog still looks on: a peer that never comes ends the job here too.
  if (healthy && stream != nullptr) {
    nccl_cuda_log_failure(cudaStreamSynchronize(stream), "cudaStreamSynchronize", rank, name);
  }
  if (!healthy && shared != nullptr) shared->abort_all();
  if (watched >= 0) shared->watchdog->remove_group(watched);
  if (shared != nullptr) std::erase(shared->groups, this);
  if (!healthy && captured()) {
    log::warn("NCCL's group '{}' is left to the end of the process: graphs still refer to it", name);
    return;
  }
  // Not in the list where start() was not reached: then it has no work either.
  if (const ncclComm_t left = comm.exchange(nullptr); left != nullptr) {
    nccl_log_failure(healthy ? ncclCommDestroy(left) : ncclCommAbort(left), "ncclCommDestroy", rank, name);
  }
  if (barrier_flag != nullptr) nccl_cuda_log_failure(cudaFree(barrier_flag), "cudaFree", rank, name);
  if (stream != nullptr) nccl_cuda_log_failure(cudaStreamDestroy(stream), "cudaStreamDestroy", rank, name);
}

/// From the watchdog's thread. The main thread may be stuck inside NCCL: then the abort is what frees it. Where graphs
/// refer to the communicator the abort would wait for them: the end of the process frees it.
void NcclGroup::abort() {
  if (captured()) return;
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

std::shared_ptr<NcclCompletion> NcclGroup::completion_of_next(Stream caller) {
  VQLM_ASSERT(shared->grouping == nullptr || shared->grouping == this);
  auto completion = group_completion;
  if (completion == nullptr) {
    completion = std::make_shared<NcclCompletion>();
    completion->event = shared->events->take();
  }
  if (NcclEvents::capturing(caller)) {
    // Whoever waits for it inside the capture keeps it for as long as the graph lives (Backend::capture).
    completion->event = Event(
        std::shared_ptr<void>(completion->event.handle(), [event = completion->event, use = in_graphs](void*) {}));
  }
  return completion;
}

std::int64_t NcclGroup::watch(const Call& call, Stream caller, const std::shared_ptr<NcclCompletion>& completion) {
  std::function<bool()> done;
  if (!NcclEvents::capturing(caller)) {
    done = [events = shared->events, completion] { return completion->recorded && events->reached(completion->event); };
  }
  return shared->watchdog->begin(watched, call.collective, call.dtype, call.count, std::move(done));
}

void NcclGroup::wait_for(Stream caller) {
  const Event ready = shared->events->take();
  NcclEvents::record(ready, caller);
  NcclEvents::wait(own_stream(), ready);
}

void NcclGroup::check_launch(int code, const Call& call, std::int64_t sequence) const {
  if (code != ncclSuccess) check(code, fmt::format("{} #{}", call.collective, sequence));
}

void NcclGroup::record(NcclCompletion& completion) {
  NcclEvents::record(completion.event, own_stream());
  completion.recorded = true;
}

void NcclGroup::begin_calls() {
  shared->watchdog->throw_if_failed();
  group_completion = completion_of_next(own_stream());
  shared->grouping = this;
  check(ncclGroupStart(), "ncclGroupStart");
}

void NcclGroup::end_calls() {
  VQLM_ASSERT(shared->grouping == this);
  {
    const std::lock_guard lock(calls);
    shared->watchdog->throw_if_failed();
    check(ncclGroupEnd(), "ncclGroupEnd");
  }
  record(*std::exchange(group_completion, nullptr));
  shared->grouping = nullptr;
}

}  // namespace vqlm
