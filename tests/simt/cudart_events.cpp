// Events: each recording is a marker that its stream reaches in turn.
#include <cstdlib>
#include <string_view>

#include "tests/simt/runtime.h"

namespace {

std::atomic<std::int64_t> nanoseconds_of_products{0};

}  // namespace

void simt::pass_time(std::int64_t nanoseconds) {
  nanoseconds_of_products += nanoseconds;
}

std::chrono::steady_clock::time_point simt::event_time() {
  static const char* const clock = std::getenv("SIMT_CLOCK");
  if (clock == nullptr || std::string_view(clock) != "products") return std::chrono::steady_clock::now();
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(nanoseconds_of_products.load()));
}

using simt::result;
using simt::runtime;
using simt::Runtime;

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (event == nullptr) return result(cudaErrorInvalidValue);
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  r.events.emplace_back();
  r.events.back().flags = flags;
  *event = &r.events.back();
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUevent_st* found = r.find(event);
  if (found == nullptr) return result(cudaErrorInvalidResourceHandle);
  r.events.remove_if([found](const CUevent_st& known) { return &known == found; });
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUevent_st* recorded = r.find(event);
  CUstream_st* on = r.find(stream);
  if (recorded == nullptr || on == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (flags == cudaEventRecordExternal) {
    if (on->capture == nullptr) return result(cudaErrorIllegalState);
    on->capture->nodes.push_back({nullptr, on->tail, recorded, nullptr, false});
    on->tail = {on->capture->nodes.size() - 1};
    return cudaSuccess;
  }
  if (on->capture != nullptr) {
    recorded->capture = on->capture;
    recorded->tail = on->tail;
    return cudaSuccess;
  }
  recorded->capture.reset();
  recorded->marker = std::make_shared<simt::Marker>();
  on->queue.push_back([marker = recorded->marker] {
    marker->reach();
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  const CUevent_st* asked = r.find(event);
  if (asked == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (asked->capture != nullptr) return result(cudaErrorCapturedEvent);
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  const simt::MarkerPointer marker = asked->marker;
  if (marker == nullptr || marker->reached) return cudaSuccess;
  // A loop of queries must end, and one query must not finish everything.
  if (r.is_main_thread() && r.rng() % 2 == 0) r.step(lock);
  return marker->reached ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  const CUevent_st* awaited = r.find(event);
  if (awaited == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (awaited->capture != nullptr) return result(cudaErrorCapturedEvent);
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  const simt::MarkerPointer marker = awaited->marker;
  if (marker != nullptr) r.run_until(lock, [&marker] { return marker->reached.load(); });
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  const CUevent_st *first = r.find(start), *last = r.find(end);
  if (milliseconds == nullptr) return result(cudaErrorInvalidValue);
  if (first == nullptr || last == nullptr || first->marker == nullptr || last->marker == nullptr ||
      ((first->flags | last->flags) & cudaEventDisableTiming) != 0) {
    return result(cudaErrorInvalidResourceHandle);
  }
  if (!first->marker->reached || !last->marker->reached) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(last->marker->when - first->marker->when).count();
  return cudaSuccess;
}

}  // extern "C"
