// GradientBuckets: ZeRO-1 (Rajbhandari et al., arXiv 1910.02054, stage 1) over the flat gradient and
// parameter buffers. A bucket is a range of them whose gradients are complete at the same time of backward;
// its reduction starts then, so that it can overlap the rest of backward: by communicators that are asynchronous, and over MPI
// by a thread. The new values of a bucket come back in the same way, beside forward.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"
#include "dist/collective_thread.h"
#include "dist/process_grid.h"

namespace vqlm {

/// A rank's piece of a bucket: elements [begin, begin + count) of the flat buffers.
struct BucketRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  bool operator==(const BucketRange&) const = default;
};

/// Whether reductions and gathers may run while the stream that asked for them goes on. no: it waits for each at once, which
/// shows what the overlap is worth; the results are the same.
enum class Overlap { no, yes };

class GradientBuckets {
 public:
  /// flat_gradients: every gradient of this rank, in reduction dtypes. Each bucket's count is a multiple of
  /// the data group's size (the model pads); 0 is allowed. The parameters of a replicated one are the same on all tensor
  /// ranks, each of which holds a part of the gradient's sum. The buckets and their order are the same on every rank. Grid, memory and back end must outlive this object;
  /// `backend` makes streams wait.
  GradientBuckets(Backend& backend, const ProcessGrid& grid, Tensor flat_gradients,
                  std::span<const ParameterBucket> buckets, Overlap overlap = Overlap::yes);

  /// Enqueues bucket's reduction, one collective, on `stream`; its gradients must be complete there. Afterwards this rank's
  /// piece holds the sum over the data group (and the tensor group, where replicated); the bucket's other
  /// pieces are undefined. Once a step for every bucket, in the same order on every rank. With Overlap::yes work that
  /// is enqueued on `stream` later runs beside the reduction and must not touch the bucket before finish()'s events.
  void reduce(std::size_t bucket, Stream stream);

  /// Ends the step's reductions: every bucket must have been reduced. Returns the events that are reached
  /// when they are done, for the stream that reads the gradients next to wait for; those of host communicators are done when
  /// it returns.
  std::vector<Event> finish();

  /// This rank's pieces, one a bucket: [begin + rank * count / P, count / P), P = the data group's size.
  std::vector<BucketRange> owned() const;

  /// Enqueues the gathering of one bucket's pieces from their owners, in place in `parameters`: the bucket's range in any
  /// dtype (the compute copy of a bucket's matrices may be bf16). Returns the event that is reached when the bucket is
  /// whole.
  Event gather(std::size_t bucket, Tensor parameters, Stream stream) const;
  /// A gather that has begun.
  struct Gathering {
    Event event;              // empty where the host has waited or will
    std::int64_t number = 0;  // of the thread's collective; 0: none
  };
  /// The same beside what `stream` does next, which must not touch the bucket before await(). In the same order on every rank.
  Gathering begin_gather(std::size_t bucket, Tensor parameters, Stream stream);
  /// Later work on `stream` finds the bucket whole.
  void await(const Gathering& gathering, Stream stream);
  /// The gathers between the two are launched together; wait for their events (the last one's is enough: all are on
  /// the data group, whose collectives end in order) after gather_end().
  void gather_begin() const { grid_.data().group_begin(); }
  void gather_end() const { grid_.data().group_end(); }

 private:
  Event enqueue_reduction(std::size_t bucket, Stream stream);
  BucketRange piece(const ParameterBucket& bucket) const;

  Backend& backend_;
  const ProcessGrid& grid_;
  Tensor flat_gradients_;
  std::vector<ParameterBucket> buckets_;
  std::vector<bool> reduced_;
  Overlap overlap_;
  std::vector<Event> events_;
  std::optional<CollectiveThread> thread_;  // last: ends before what it works on
};

}  // namespace vqlm
