// Streams order work on a device; events mark points in them. On the host back end work is done when a call returns,
// so both are empty there.
#pragma once

#include <memory>

namespace vqlm {

/// A queue of device work (cudaStream_t on the GPU). A plain handle: the Backend that made it owns the queue.
struct Stream {
  void* handle = nullptr;
};

/// A point in a stream. Empty means already reached. Shared ownership, since several streams may wait for one event.
class Event {
 public:
  Event() = default;
  explicit Event(std::shared_ptr<void> handle) : handle_(std::move(handle)) {}
  void* handle() const { return handle_.get(); }

 private:
  std::shared_ptr<void> handle_;
};

}  // namespace vqlm
