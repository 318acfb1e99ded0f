#include "train/engine/parameter_gathers.h"

#include <algorithm>

namespace vqlm {
namespace {

bool holds_averages(const ParameterStore& parameters, int bucket) {
  return std::ranges::any_of(parameters.parameters(), [&](const Parameter& p) {
    return p.bucket == bucket && p.rule == UpdateRule::moving_average;
  });
}

/// All, where forward calls no other group or hosts wait for their own collectives alone. NCCL starts the collectives of all
/// groups in the order of their calls (NCCL_LAUNCH_ORDER_IMPLICIT), so one of the tensor group's would wait until the last
/// gather begins, which is when the others have ended: there one gather is under way while forward computes with the bucket before.
std::size_t gathers_ahead(const Backend& backend, const ProcessGrid& grid, Overlap overlap, std::size_t all) {
  if (overlap == Overlap::no) return 0;
  return backend.host_accessible() || grid.tensor_size() == 1 ? all : 1;
}

}  // namespace

ParameterGathers::ParameterGathers(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters,
                                   GradientBuckets& buckets, Overlap overlap, const std::vector<int>& in_forward)
    : backend_(backend),
      parameters_(parameters),
      buckets_(buckets),
      ahead_(gathers_ahead(backend, grid, overlap, in_forward.size())) {
  if (grid.data_size() == 1) return;
  const auto travels = [&](int bucket) {
    const ParameterBucket& of = parameters.buckets()[static_cast<std::size_t>(bucket)];
    return of.count > 0 && !of.by_rows;
  };
  for (const int bucket : in_forward) {
    if (travels(bucket) && !holds_averages(parameters, bucket)) beside_.push_back(bucket);
  }
  for (int bucket = 0; bucket < static_cast<int>(parameters.buckets().size()); ++bucket) {
    if (travels(bucket) && std::ranges::count(beside_, bucket) == 0) at_once_.push_back(bucket);
  }
}

void ParameterGathers::updated() {
  for (const int bucket : beside_) parameters_.set_stale(bucket, true);
  gather_now(at_once_);
}

void ParameterGathers::begin_forward() {
  begun_.clear();
  arrived_ = 0;
}

// What is needed at once and was not begun before has nothing to run beside, so that no thread need bring it.
void ParameterGathers::needed(std::span<const int> buckets) {
  const Stream compute = backend_.compute_stream();
  std::size_t end = arrived_;
  for (const int bucket : buckets) {
    if (std::ranges::count(beside_, bucket) == 0) continue;
    VQLM_ASSERT(end < beside_.size() && beside_[end] == bucket);
    if (end++ == begun_.size())
      begun_.push_back({.event = buckets_.gather(static_cast<std::size_t>(bucket), values_of(bucket), compute)});
  }
  if (end == arrived_) return;
  while (begun_.size() < std::min(beside_.size(), end + ahead_)) {
    const int next = beside_[begun_.size()];
    begun_.push_back(buckets_.begin_gather(static_cast<std::size_t>(next), values_of(next), compute));
  }
  for (; arrived_ < end; ++arrived_) {
    buckets_.await(begun_[arrived_], compute);
    begun_[arrived_] = {};
    arrived(beside_[arrived_]);
  }
}

void ParameterGathers::end_forward() {
  VQLM_ASSERT(arrived_ == beside_.size());
  for (const int bucket : beside_) parameters_.set_stale(bucket, false);
}

void ParameterGathers::complete() {
  const auto stale = [&](int bucket) { return parameters_.buckets()[static_cast<std::size_t>(bucket)].stale; };
  if (std::ranges::any_of(beside_, stale)) gather_now(beside_);
}

bool ParameterGathers::goes_rounded(const ParameterBucket& bucket) const {
  return parameters_.flat_rounded() && bucket.only_matrices;
}

Tensor ParameterGathers::values_of(int bucket) const {
  const ParameterBucket& range = parameters_.buckets()[static_cast<std::size_t>(bucket)];
  if (goes_rounded(range)) return parameters_.flat_rounded().range(range.begin, range.count);
  return parameters_.masters(range.begin, range.count);
}

void ParameterGathers::arrived(int bucket) {
  const ParameterBucket& range = parameters_.buckets()[static_cast<std::size_t>(bucket)];
  if (!goes_rounded(range)) parameters_.round_values(range.begin, range.count);
  parameters_.set_stale(bucket, false);
}

void ParameterGathers::gather_now(const std::vector<int>& buckets) {
  if (buckets.empty()) return;
  Event last;
  buckets_.gather_begin();
  for (const int bucket : buckets)
    last = buckets_.gather(static_cast<std::size_t>(bucket), values_of(bucket), backend_.compute_stream());
  buckets_.gather_end();
  backend_.wait(backend_.compute_stream(), last);
  for (const int bucket : buckets) arrived(bucket);
}

}  // namespace vqlm
