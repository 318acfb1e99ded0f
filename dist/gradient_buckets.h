// GradientBuckets: ZeRO-1 (Rajbhandari et al., arXiv 1910.02054, stage 1) over the flat gradient and
// parameter buffers. A bucket is a range of them whose gradients are complete at the same time of backward;
// its reduction starts then, so that it can overlap the rest of backward on back ends whose communicators are
// asynchronous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/communicator.h"

namespace vqlm {

/// Elements [begin, begin + count) of the flat buffers.
struct BucketRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  bool operator==(const BucketRange&) const = default;
};

class GradientBuckets {
 public:
  /// flat_gradients: every gradient of this rank, in reduction dtypes. Each bucket's count is a multiple of
  /// the data group's size (the model pads); 0 is allowed. replicated_over_tensor[i]: bucket i's parameters
  /// are the same on all tensor ranks and each of these holds a part of the gradient's sum. The buckets,
  /// their order and the flags are the same on every rank of both groups. Groups and memory must outlive this
  /// object.
  GradientBuckets(Communicator& data_group, Communicator& tensor_group, Tensor flat_gradients,
                  std::vector<BucketRange> buckets, std::vector<bool> replicated_over_tensor);

  /// Enqueues bucket's reduction on `stream`; its gradients must be complete there. Afterwards this rank's
  /// piece holds the sum over the data group (and the tensor group, where replicated); the bucket's other
  /// pieces are undefined. Once a step for every bucket, in the same order on every rank.
  void reduce(std::size_t bucket, Stream stream);

  /// Ends the step's reductions: every bucket must have been reduced. Returns the events that are reached
  /// when they are done, for the stream that reads the gradients next to wait for; host communicators have
  /// finished already.
  std::vector<Event> finish();

  /// This rank's pieces, one a bucket: [begin + rank * count / P, count / P), P = the data group's size.
  std::vector<BucketRange> owned() const;

  /// Enqueues, for every bucket, the gathering of its pieces from their owners, in place in flat_parameters
  /// (the layout of flat_gradients). Returns the event of the last; collectives on one stream end in order.
  Event gather(Tensor flat_parameters, Stream stream) const;

 private:
  BucketRange piece(const BucketRange& bucket) const;

  Communicator& data_group_;
  Communicator& tensor_group_;
  Tensor flat_gradients_;
  std::vector<BucketRange> buckets_;
  std::vector<bool> replicated_over_tensor_;
  std::vector<bool> reduced_;
  std::vector<Event> events_;
};

}  // namespace vqlm
