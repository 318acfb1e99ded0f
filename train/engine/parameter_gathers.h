// ZeRO-1's last part: after an update every data rank has new values of the pieces that it owns, and the others get them bucket
// by bucket beside their next forward pass, in the order in which that needs them (Transformer::buckets_in_forward()); it waits
// for a bucket just before the first op that reads it. Until then the bucket is stale (ParameterBucket).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"
#include "dist/gradient_buckets.h"
#include "dist/process_grid.h"

namespace vqlm {

class ParameterGathers {
 public:
  /// in_forward: the buckets in the order of forward. Those that are left out, and those that hold moving averages, which a
  /// head reads right after the update, are gathered by updated() itself. All must outlive the object; the store must be allocated.
  ParameterGathers(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, GradientBuckets& buckets,
                   Overlap overlap, const std::vector<int>& in_forward);

  /// The owners' values are new. Collective, as all calls are.
  void updated();

  /// A step's first forward pass begins. It gathers its buckets whether they are stale or not: so a graph of it serves always.
  void begin_forward();
  /// Later work on the compute stream finds the values of these buckets. Called with all of in_forward, in their order, in as
  /// many parts as forward likes.
  void needed(std::span<const int> buckets);
  /// Such a pass is enqueued, by these calls or as a graph that recorded them: nothing is stale.
  void end_forward();

  /// Later work on the compute stream finds all values: for whoever else reads them. Nothing where they are there.
  void complete();

 private:
  /// What travels: of matrices that ops read in bf16 that copy, half of the bytes. Buckets that hold vectors, too, go in f32
  /// and are rounded where they arrive.
  bool goes_rounded(const ParameterBucket& bucket) const;
  Tensor values_of(int bucket) const;
  /// Later work on the compute stream finds the values in place.
  void arrived(int bucket);
  void gather_now(const std::vector<int>& buckets);

  Backend& backend_;
  ParameterStore& parameters_;
  GradientBuckets& buckets_;
  std::vector<int> at_once_;                       // by updated()
  std::vector<int> beside_;                        // forward, in its order
  std::size_t ahead_;                              // how many gathers are begun beyond those that forward needs at once
  std::vector<GradientBuckets::Gathering> begun_;  // in this pass, of beside_
  std::size_t arrived_ = 0;                        // of them
};

}  // namespace vqlm
