// Owners of the CUDA runtime's objects. An Event's handle is a cudaEvent_t, a Graph's a cudaGraphExec_t, a Stream's a
// cudaStream_t: dist/ relies on the first and the last.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/stream.h"

namespace vqlm::cuda {

/// A stream that does not wait for the legacy default stream.
class DeviceStream {
 public:
  DeviceStream();
  DeviceStream(DeviceStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  DeviceStream& operator=(DeviceStream&&) = delete;
  ~DeviceStream();
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

enum class Timing { no, yes };

class DeviceEvent {
 public:
  explicit DeviceEvent(Timing timing);
  DeviceEvent(DeviceEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  DeviceEvent& operator=(DeviceEvent&&) = delete;
  ~DeviceEvent();
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Events of one kind, kept and used again: a step records hundreds. Usable from several threads.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  static std::shared_ptr<EventPool> make(Timing timing);
  /// An event that is not recorded yet; it comes back when its last copy goes, also after the pool's maker went.
  Event take();

 private:
  explicit EventPool(Timing timing) : timing_(timing) {}

  Timing timing_;
  std::mutex mutex_;
  std::vector<DeviceEvent> free_;
};

/// The work captured from `stream` between the constructor and finish(). Abandoned before finish(), the capture ends and
/// its work is dropped. Thread-local mode: what this thread calls is checked, other threads are left in peace.
class StreamCapture {
 public:
  explicit StreamCapture(cudaStream_t stream);
  ~StreamCapture();
  StreamCapture(const StreamCapture&) = delete;
  StreamCapture& operator=(const StreamCapture&) = delete;
  /// Ends the capture; an executable graph, which holds on to `events`.
  Graph finish(std::vector<Event> events);

 private:
  cudaStream_t stream_;
};

/// True where calls on `stream` are recorded into a graph.
bool is_capturing(cudaStream_t stream);

/// Page-locked host memory, which the copy engines read and write by themselves.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::size_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  PinnedBuffer& operator=(PinnedBuffer&&) = delete;
  ~PinnedBuffer();
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

}  // namespace vqlm::cuda
