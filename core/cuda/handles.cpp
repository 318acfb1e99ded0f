#include "core/cuda/handles.h"

#include "core/cuda/cuda_check.h"

namespace vqlm::cuda {

DeviceStream::DeviceStream() {
  cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

DeviceStream::~DeviceStream() {
  if (stream_ != nullptr) cuda_log_failure(cudaStreamDestroy(stream_), "cudaStreamDestroy");
}

DeviceEvent::DeviceEvent(Timing timing) {
  const unsigned flags = timing == Timing::yes ? cudaEventDefault : cudaEventDisableTiming;
  cuda_check(cudaEventCreateWithFlags(&event_, flags), "cudaEventCreateWithFlags");
}

DeviceEvent::~DeviceEvent() {
  if (event_ != nullptr) cuda_log_failure(cudaEventDestroy(event_), "cudaEventDestroy");
}

std::shared_ptr<EventPool> EventPool::make(Timing timing) {
  return std::shared_ptr<EventPool>(new EventPool(timing));
}

Event EventPool::take() {
  auto event = [&] {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_shared<DeviceEvent>(timing_);
    auto taken = std::make_shared<DeviceEvent>(std::move(free_.back()));
    free_.pop_back();
    return taken;
  }();
  // Going back while a stream still waits for it is well: a wait is for the recording that it saw.
  const cudaEvent_t handle = event->get();
  return Event(std::shared_ptr<void>(handle, [event = std::move(event), pool = shared_from_this()](void*) {
    const std::lock_guard lock(pool->mutex_);
    pool->free_.push_back(std::move(*event));
  }));
}

StreamCapture::StreamCapture(cudaStream_t stream) : stream_(stream) {
  cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

StreamCapture::~StreamCapture() {
  if (stream_ == nullptr) return;
  cudaGraph_t graph = nullptr;
  // An invalidated capture reports that here, too; the exception that abandons it has said why.
  if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess) static_cast<void>(cudaGetLastError());
  if (graph != nullptr) cuda_log_failure(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

Graph StreamCapture::finish(std::vector<Event> events) {
  cudaGraph_t recorded = nullptr;
  cuda_check(cudaStreamEndCapture(std::exchange(stream_, nullptr), &recorded), "cudaStreamEndCapture");
  const std::shared_ptr<void> description(recorded, [](void* graph) {
    cuda_log_failure(cudaGraphDestroy(static_cast<cudaGraph_t>(graph)), "cudaGraphDestroy");
  });
  cudaGraphExec_t executable = nullptr;
  cuda_check(cudaGraphInstantiate(&executable, recorded, 0), "cudaGraphInstantiate");
  return Graph(std::shared_ptr<void>(executable, [events = std::move(events)](void* graph) {
    cuda_log_failure(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), "cudaGraphExecDestroy");
  }));
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda_check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) {
  cuda_check(cudaHostAlloc(&data_, bytes, cudaHostAllocDefault), "cudaHostAlloc");
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cuda_log_failure(cudaFreeHost(data_), "cudaFreeHost");
}

}  // namespace vqlm::cuda
