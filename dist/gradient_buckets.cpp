#include "dist/gradient_buckets.h"

#include <utility>

namespace vqlm {

GradientBuckets::GradientBuckets(Communicator& data_group, Communicator& tensor_group, Tensor flat_gradients,
                                 std::vector<BucketRange> buckets, std::vector<bool> replicated_over_tensor)
    : data_group_(data_group),
      tensor_group_(tensor_group),
      flat_gradients_(flat_gradients),
      buckets_(std::move(buckets)),
      replicated_over_tensor_(std::move(replicated_over_tensor)),
      reduced_(buckets_.size(), false) {
  VQLM_ASSERT(replicated_over_tensor_.size() == buckets_.size());
  for (const BucketRange& bucket : buckets_) {
    VQLM_ASSERT(bucket.begin >= 0 && bucket.count >= 0 &&
                bucket.begin + bucket.count <= flat_gradients_.numel());
    VQLM_ASSERT(bucket.count % data_group_.size() == 0);
  }
}

BucketRange GradientBuckets::piece(const BucketRange& bucket) const {
  const std::int64_t count = bucket.count / data_group_.size();
  return {bucket.begin + data_group_.rank() * count, count};
}

void GradientBuckets::reduce(std::size_t bucket, Stream stream) {
  VQLM_ASSERT(bucket < buckets_.size() && !reduced_[bucket]);
  reduced_[bucket] = true;
  const BucketRange& range = buckets_[bucket];
  if (range.count == 0) return;
  const Tensor gradients = flat_gradients_.range(range.begin, range.count);
  Event done;
  if (replicated_over_tensor_[bucket] && tensor_group_.size() > 1) {
    done = tensor_group_.all_reduce(gradients, Reduce::sum, stream);
  }
  if (data_group_.size() > 1) {
    const BucketRange mine = piece(range);
    done = data_group_.reduce_scatter(flat_gradients_.range(mine.begin, mine.count), gradients, Reduce::sum,
                                      stream);
  }
  if (done.handle() != nullptr) events_.push_back(done);
}

std::vector<Event> GradientBuckets::finish() {
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    VQLM_ASSERT(reduced_[bucket]);
    reduced_[bucket] = false;
  }
  return std::exchange(events_, {});
}

std::vector<BucketRange> GradientBuckets::owned() const {
  std::vector<BucketRange> pieces;
  pieces.reserve(buckets_.size());
  for (const BucketRange& bucket : buckets_) pieces.push_back(piece(bucket));
  return pieces;
}

Event GradientBuckets::gather(Tensor flat_parameters, Stream stream) const {
  VQLM_ASSERT(flat_parameters.numel() == flat_gradients_.numel());
  Event done;
  if (data_group_.size() == 1) return done;
  for (const BucketRange& bucket : buckets_) {
    if (bucket.count == 0) continue;
    const BucketRange mine = piece(bucket);
    done = data_group_.all_gather(flat_parameters.range(bucket.begin, bucket.count),
                                  flat_parameters.range(mine.begin, mine.count), stream);
  }
  return done;
}

}  // namespace vqlm
