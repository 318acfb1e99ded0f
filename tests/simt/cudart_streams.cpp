// Streams, events and the scheduler of their work.
#include <cstdio>
#include <cstdlib>

#include "tests/simt/runtime.h"
#include "tests/simt/streams.h"

namespace simt {
namespace {

// Static initialisation runs on the main thread.
const std::thread::id started_on = std::this_thread::get_id();

std::uint64_t seed_of_environment() {
  const char* seed = std::getenv("SIMT_SEED");
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  return (seed == nullptr ? 0 : std::strtoull(seed, nullptr, 10)) * 1'000'003u +
         (rank == nullptr ? 0 : std::strtoull(rank, nullptr, 10));
}

void forget_finished(Runtime& r) {
  r.streams.remove_if([](const CUstream_st& stream) { return stream.destroyed && stream.queue.empty(); });
}

}  // namespace

Runtime::Runtime() : rng(seed_of_environment()), main_thread_(started_on) {
  default_stream_allowed = std::getenv("SIMT_DEFAULT_STREAM") != nullptr;
}

Runtime& runtime() {
  static Runtime instance;
  return instance;
}

void runtime_misuse(const char* message) {
  std::fprintf(stderr, "simt: %s\n", message);
  std::abort();
}

CUstream_st* Runtime::find(cudaStream_t stream) {
  if (stream == nullptr) return default_stream_allowed ? &default_stream : nullptr;
  for (CUstream_st& known : streams) {
    if (&known == stream && !known.destroyed) return &known;
  }
  return nullptr;
}

CUevent_st* Runtime::find(cudaEvent_t event) {
  for (CUevent_st& known : events) {
    if (&known == event) return &known;
  }
  return nullptr;
}

bool Runtime::all_idle() const {
  for (const CUstream_st& stream : streams) {
    if (!stream.queue.empty()) return false;
  }
  return default_stream.queue.empty();
}

void Runtime::append(CUstream_st& stream, Poll poll, Work work) {
  const bool captured = stream.capture != nullptr;
  const bool behind_kernel =
      !captured ? stream.kernel_last : stream.tail.size() == 1 && stream.capture->nodes[stream.tail.front()].kernel;
  if (work == Work::dependent_kernel && !behind_kernel) {
    runtime_misuse("a dependent launch, and in front of it something else than one kernel");
  }
  if (!captured) {
    stream.queue.push_back(std::move(poll));
    stream.kernel_last = work != Work::other;
    return;
  }
  stream.capture->nodes.push_back({std::move(poll), stream.tail, nullptr, nullptr, work != Work::other});
  stream.tail = {stream.capture->nodes.size() - 1};
}

// The most urgent stream with work that was not tried yet. Urgencies are drawn anew now and then: one stream may run
// far ahead of another or far behind it, which a fair draw at each step would hardly ever try.
CUstream_st* Runtime::choose(std::set<CUstream_st*>& tried) {
  CUstream_st* best = nullptr;
  const auto consider = [&](CUstream_st& stream) {
    if (stream.queue.empty() || tried.contains(&stream)) return;
    if (best == nullptr || stream.urgency > best->urgency) best = &stream;
  };
  consider(default_stream);
  for (CUstream_st& stream : streams) consider(stream);
  if (best != nullptr) tried.insert(best);
  return best;
}

bool Runtime::step(Lock& lock) {
  if (running_) runtime_misuse("work on a stream called the runtime");
  if (rng() % 8 == 0) {
    default_stream.urgency = rng();
    for (CUstream_st& stream : streams) stream.urgency = rng();
  }
  const std::uint64_t before = work_done;
  std::set<CUstream_st*> tried;
  while (CUstream_st* stream = choose(tried)) {
    const Poll& poll = stream->queue.front();  // only this thread takes from a queue, and a deque keeps its place
    running_ = true;
    lock.unlock();
    const bool done = poll();
    lock.lock();
    running_ = false;
    if (done) {
      ++work_done;
      stream->queue.pop_front();
      if (stream->destroyed) forget_finished(*this);
    }
    if (work_done != before) return true;
  }
  return false;
}

void Runtime::run_until(Lock& lock, const std::function<bool()>& done) {
  constexpr int patience = 1000;
  int idle_rounds = 0;
  while (!done()) {
    if (is_main_thread() && step(lock)) {
      idle_rounds = 0;
      continue;
    }
    if (is_main_thread() && all_idle()) runtime_misuse("waits for what was never queued");
    // Work in progress elsewhere (another rank's part of a collective): leave it the processor.
    lock.unlock();
    if (++idle_rounds < patience) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    lock.lock();
  }
}

cudaError_t enqueue(cudaStream_t stream, std::function<bool()> poll, Work work) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* queue = r.find(stream);
  if (queue == nullptr) return result(cudaErrorInvalidResourceHandle);
  r.append(*queue, std::move(poll), work);
  return cudaSuccess;
}

bool progress() {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  return r.is_main_thread() && r.step(lock);
}

void set_stream_seed(std::uint64_t seed) {
  const Runtime::Lock lock(runtime().mutex);
  runtime().rng.seed(seed);
}

void allow_default_stream(bool allowed) {
  const Runtime::Lock lock(runtime().mutex);
  runtime().default_stream_allowed = allowed;
}

}  // namespace simt

using simt::result;
using simt::runtime;
using simt::Runtime;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  if (stream == nullptr || flags > cudaStreamNonBlocking) return result(cudaErrorInvalidValue);
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  r.streams.emplace_back();
  r.streams.back().flags = flags;
  r.streams.back().priority = priority;
  r.streams.back().urgency = r.rng();
  *stream = &r.streams.back();
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* found = stream == nullptr ? nullptr : r.find(stream);
  if (found == nullptr || found->capture != nullptr) return result(cudaErrorInvalidResourceHandle);
  found->destroyed = true;
  simt::forget_finished(r);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  CUstream_st* found = r.find(stream);
  if (found == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (found->capture != nullptr) {
    found->capture->invalidated = true;
    return result(cudaErrorStreamCaptureUnsupported);
  }
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  r.run_until(lock, [found] { return found->queue.empty(); });
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  CUstream_st* found = r.find(stream);
  if (found == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (found->capture != nullptr) {
    found->capture->invalidated = true;
    return result(cudaErrorStreamCaptureUnsupported);
  }
  if (!found->queue.empty() && r.is_main_thread() && r.rng() % 2 == 0) r.step(lock);
  return found->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* waiting = r.find(stream);
  CUevent_st* awaited = r.find(event);
  if (waiting == nullptr || awaited == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (flags == cudaEventWaitExternal) {
    if (waiting->capture == nullptr) return result(cudaErrorIllegalState);
    waiting->capture->nodes.push_back({nullptr, waiting->tail, nullptr, awaited, false});
    waiting->tail = {waiting->capture->nodes.size() - 1};
    return cudaSuccess;
  }
  if (awaited->capture != nullptr) {
    // Waiting for a captured event takes the stream into that capture.
    if (waiting->capture == nullptr) {
      if (awaited->capture->origin == nullptr) return result(cudaErrorCapturedEvent);  // that capture has ended
      waiting->capture = awaited->capture;
      waiting->tail.clear();
      waiting->capture->streams.push_back(waiting);
    }
    if (waiting->capture != awaited->capture) return result(cudaErrorStreamCaptureMerge);
    waiting->tail.insert(waiting->tail.end(), awaited->tail.begin(), awaited->tail.end());
    return cudaSuccess;
  }
  if (waiting->capture != nullptr && awaited->marker != nullptr) return result(cudaErrorStreamCaptureIsolation);
  if (awaited->marker != nullptr) {
    waiting->kernel_last = false;
    waiting->queue.push_back([marker = awaited->marker] { return marker->reached.load(std::memory_order_acquire); });
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  r.run_until(lock, [&r] { return r.all_idle(); });
  return cudaSuccess;
}

}  // extern "C"
