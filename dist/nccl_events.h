// CUDA events for collectives: a step makes hundreds, so they are kept and used again.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "core/stream.h"

namespace vqlm {

/// Events without timing. Usable from several threads; on the device that was current when it was made.
class NcclEvents : public std::enable_shared_from_this<NcclEvents> {
 public:
  static std::shared_ptr<NcclEvents> make();
  ~NcclEvents();
  NcclEvents(const NcclEvents&) = delete;
  NcclEvents& operator=(const NcclEvents&) = delete;

  /// An event that is not recorded yet; it comes back when the last copy goes. Streams that were told to wait for it
  /// keep waiting for the work it was recorded after, even if it is recorded again (cudaStreamWaitEvent). Throws Error.
  Event take();
  /// Records a taken event on `stream`, and makes `stream` wait for one. Throw Error.
  static void record(const Event& event, Stream stream);
  static void wait(Stream stream, const Event& event);
  /// Whether the work before the event's last recording has finished, or failed, which whoever waits for it finds out.
  /// For the watchdog's thread: does not block and does not disturb a graph capture of another thread.
  bool reached(const Event& event) const;
  /// True where calls on `stream` are recorded into a CUDA graph.
  static bool capturing(Stream stream);

 private:
  explicit NcclEvents(int device) : device_(device) {}

  int device_;
  std::mutex mutex_;
  std::vector<void*> free_;
};

}  // namespace vqlm
