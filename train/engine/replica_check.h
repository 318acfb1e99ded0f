// Do ranks that should hold the same parameters hold the same bits? Broken memory, a broken link or a collective gone wrong
// lets them drift apart without a word: each rank goes on with its own model, and the loss tells late or never.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"
#include "dist/process_grid.h"

namespace vqlm {

/// Copies of one bucket that are not all the same.
struct ReplicaDifference {
  std::string bucket;
  /// World ranks, rising: those whose copy is not what more than half of the holders have, or all holders where no copy has
  /// that majority (of two, one cannot say which is right).
  std::vector<int> ranks;
  bool majority = false;
  bool operator==(const ReplicaDifference&) const = default;
};

/// Compares `fingerprints` (ranks, buckets), by world rank. Holders of a bucket's copies are the ranks of one data group, or
/// for a replicated bucket all ranks. tensor_size: of the grid (world rank = data rank * tensor_size + tensor rank).
std::vector<ReplicaDifference> compare_replicas(const std::vector<std::uint64_t>& fingerprints,
                                                const std::vector<ParameterBucket>& buckets, int tensor_size);

/// Compares what ops of the ranks of a data group read, and the replicated bucket over all ranks. What it sees: copies that
/// differ when it is called. What it cannot see: a wrong value that its owner gave to all (docs/reliability.md).
class ReplicaCheck {
 public:
  /// All must outlive the check.
  ReplicaCheck(Backend& backend, const ProcessGrid& grid, const ParameterStore& parameters)
      : backend_(backend), grid_(grid), parameters_(parameters) {}

  /// Collective over the world, while no bucket is stale: between a step's first forward pass and its update. Reads the parameters once and blocks the host.
  /// Throws Error, the same on every rank, where copies differ: it names the ranks and the buckets. step: for the message.
  void run(std::int64_t step) const;

 private:
  bool has_copies(const ParameterBucket& bucket) const;
  std::uint64_t fingerprint(const ParameterBucket& bucket) const;
  std::string message(std::int64_t step, const std::vector<ReplicaDifference>& differences) const;

  Backend& backend_;
  const ProcessGrid& grid_;
  const ParameterStore& parameters_;
};

}  // namespace vqlm
