#include "dist/nccl_events.h"

#include <cuda_runtime_api.h>

#include "dist/nccl_check.h"

namespace vqlm {
namespace {

void check(cudaError_t code, const char* call) {
  nccl_cuda_check(code, call, 0, "events");
}

cudaEvent_t handle_of(const Event& event) {
  return static_cast<cudaEvent_t>(event.handle());
}

cudaStream_t handle_of(Stream stream) {
  return static_cast<cudaStream_t>(stream.handle);
}

}  // namespace

std::shared_ptr<NcclEvents> NcclEvents::make() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return std::shared_ptr<NcclEvents>(new NcclEvents(device));
}

NcclEvents::~NcclEvents() {
  for (void* event : free_) {
    nccl_cuda_log_failure(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "cudaEventDestroy", 0, "events");
  }
}

Event NcclEvents::take() {
  void* event = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      event = free_.back();
      free_.pop_back();
    }
  }
  if (event == nullptr) {
    cudaEvent_t made = nullptr;
    check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    event = made;
  }
  return Event(std::shared_ptr<void>(event, [events = shared_from_this()](void* returned) {
    const std::lock_guard lock(events->mutex_);
    events->free_.push_back(returned);
  }));
}

void NcclEvents::record(const Event& event, Stream stream) {
  check(cudaEventRecord(handle_of(event), handle_of(stream)), "cudaEventRecord");
}

void NcclEvents::wait(Stream stream, const Event& event) {
  check(cudaStreamWaitEvent(handle_of(stream), handle_of(event), 0), "cudaStreamWaitEvent");
}

// A thread in the default mode must not query events while another one captures: it would invalidate the capture.
bool NcclEvents::reached(const Event& event) const {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  nccl_cuda_log_failure(cudaSetDevice(device_), "cudaSetDevice", 0, "events");
  nccl_cuda_log_failure(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode", 0, "events");
  return cudaEventQuery(handle_of(event)) != cudaErrorNotReady;
}

bool NcclEvents::capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(handle_of(stream), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace vqlm
