// Streams order work on a device; events mark points in them. On the host back end work is done when a call returns,
// so streams are empty there, and events too but for time marks.
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

/// Work recorded by Backend::capture, to be enqueued again by Backend::replay.
class Graph {
 public:
  Graph() = default;
  explicit Graph(std::shared_ptr<void> handle) : handle_(std::move(handle)) {}
  explicit operator bool() const { return handle_ != nullptr; }
  void* handle() const { return handle_.get(); }

 private:
  std::shared_ptr<void> handle_;
};

}  // namespace vqlm
