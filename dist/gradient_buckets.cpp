#include "dist/gradient_buckets.h"

#include <utility>

namespace vqlm {
namespace {

// Smaller buckets are reduced and gathered by the main thread: waking the other one, and its sleeps, cost more than there is to
// hide. 1 MiB takes 8 ms at 1 Gbit/s, 0.8 at 10.
constexpr std::size_t least_beside_bytes = std::size_t{1} << 20;

}  // namespace

GradientBuckets::GradientBuckets(Backend& backend, const ProcessGrid& grid, Tensor flat_gradients,
                                 std::span<const ParameterBucket> buckets, Overlap overlap)
    : backend_(backend),
      grid_(grid),
      flat_gradients_(flat_gradients),
      buckets_(buckets.begin(), buckets.end()),
      reduced_(buckets_.size(), false),
      overlap_(overlap) {
  for (const ParameterBucket& bucket : buckets_) {
    VQLM_ASSERT(bucket.begin >= 0 && bucket.count >= 0 && bucket.begin + bucket.count <= flat_gradients_.numel());
    VQLM_ASSERT(bucket.count % grid_.data_size() == 0);
  }
  if (overlap_ == Overlap::yes && grid_.beside() != nullptr) thread_.emplace(*grid_.beside());
}

BucketRange GradientBuckets::piece(const ParameterBucket& bucket) const {
  const std::int64_t count = bucket.count / grid_.data_size();
  return {bucket.begin + grid_.data_rank() * count, count};
}

void GradientBuckets::reduce(std::size_t bucket, Stream stream) {
  VQLM_ASSERT(bucket < buckets_.size() && !reduced_[bucket]);
  reduced_[bucket] = true;
  const Event done = enqueue_reduction(bucket, stream);
  if (done.handle() == nullptr) return;
  if (overlap_ == Overlap::no) {
    backend_.wait(stream, done);
  } else {
    events_.push_back(done);
  }
}

// Replicated parameters on a grid of both kinds take one all-reduce over the world: an all-reduce over the tensor group
// whose result a reduce-scatter over the data group reads would be two collectives, one waiting for the other.
Event GradientBuckets::enqueue_reduction(std::size_t bucket, Stream stream) {
  const ParameterBucket& range = buckets_[bucket];
  if (range.count == 0) return {};
  const Tensor gradients = flat_gradients_.range(range.begin, range.count);
  if (range.replicated && grid_.tensor_size() > 1) {
    Communicator& holders = grid_.data_size() > 1 ? grid_.world() : grid_.tensor();
    return holders.all_reduce(gradients, Reduce::sum, stream);
  }
  const BucketRange mine = piece(range);
  if (thread_ && gradients.bytes() >= least_beside_bytes) {
    thread_->reduce_scatter(flat_gradients_.range(mine.begin, mine.count), gradients);
    return {};
  }
  return grid_.data().reduce_scatter(flat_gradients_.range(mine.begin, mine.count), gradients, Reduce::sum, stream);
}

std::vector<Event> GradientBuckets::finish() {
  if (thread_) thread_->finish("reduce_scatter of gradients");
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    VQLM_ASSERT(reduced_[bucket]);
    reduced_[bucket] = false;
  }
  return std::exchange(events_, {});
}

std::vector<BucketRange> GradientBuckets::owned() const {
  std::vector<BucketRange> pieces;
  pieces.reserve(buckets_.size());
  for (const ParameterBucket& bucket : buckets_) pieces.push_back(piece(bucket));
  return pieces;
}

Event GradientBuckets::gather(std::size_t bucket, Tensor parameters, Stream stream) const {
  VQLM_ASSERT(bucket < buckets_.size() && parameters.numel() == buckets_[bucket].count);
  const ParameterBucket& range = buckets_[bucket];
  if (range.count == 0) return {};
  const BucketRange mine = piece(range);
  return grid_.data().all_gather(parameters, parameters.range(mine.begin - range.begin, mine.count), stream);
}

GradientBuckets::Gathering GradientBuckets::begin_gather(std::size_t bucket, Tensor parameters, Stream stream) {
  if (!thread_ || parameters.bytes() < least_beside_bytes) return {.event = gather(bucket, parameters, stream)};
  VQLM_ASSERT(bucket < buckets_.size() && parameters.numel() == buckets_[bucket].count);
  const BucketRange mine = piece(buckets_[bucket]);
  return {.event = {},
          .number = thread_->all_gather(parameters, parameters.range(mine.begin - buckets_[bucket].begin, mine.count))};
}

void GradientBuckets::await(const Gathering& gathering, Stream stream) {
  if (gathering.number > 0) thread_->finish(gathering.number, "all_gather of parameters");
  backend_.wait(stream, gathering.event);
}

}  // namespace vqlm
