// The collectives of a grid's groups by size, and what pairs of hosts exchange: what a network gives before a run depends on it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "dist/process_grid.h"

namespace vqlm {

struct CollectiveBenchOptions {
  std::int64_t min_bytes = 1 << 10;  // of the first size,
  std::int64_t max_bytes = 1 << 25;  // of the last one,
  std::int64_t factor = 8;           // and from one to the next
  double seconds = 0.2;              // of timed calls of each collective and size
};

/// One collective of one group at one size.
struct CollectiveRate {
  std::string collective;  // as in core/communicator.h
  std::int64_t bytes =
      0;  // nccl-tests' size: of x (all_reduce), of the whole input (reduce_scatter, all_to_all), of the whole
          // output (all_gather)
  double seconds = 0;  // of one call, of the slowest rank
  int ranks = 1;

  /// nccl-tests' bus bandwidth, bytes/s: what each rank sends in a ring, whatever their number.
  double bus_rate() const;
};

struct GroupRates {
  std::string group;
  int ranks = 1;
  std::vector<CollectiveRate> rates;  // by collective, then size
};

/// The first ranks of two hosts, which send to each other at the same time.
struct HostPair {
  std::string first, second;
  double rate = 0;  // bytes/s each way
};

struct CollectiveBenchResult {
  std::string machine;             // the back end
  std::vector<std::string> hosts;  // by rank of the world
  std::vector<GroupRates> groups;
  std::vector<HostPair> pairs;  // in rounds of pairs that are measured at once, so that none shares a host
};

/// Groups of several ranks; where data or tensor is the world, the world alone. `hosts`: each rank's. Collective; the result is
/// complete on every rank. Throws UsageError for sizes that make none.
CollectiveBenchResult run_collective_bench(Backend& backend, const ProcessGrid& grid,
                                           const std::vector<std::string>& hosts,
                                           const CollectiveBenchOptions& options);

/// Two hosts a pair, so that each host is in at most one pair of a round and every pair in one round. Of an odd number one
/// pauses. Returns index pairs.
std::vector<std::vector<std::pair<int, int>>> rounds_of_pairs(int hosts);

std::string to_text(const CollectiveBenchResult& result);
/// Keys: machine, hosts, groups (group, ranks, rates: collective, bytes, seconds, bus_bytes_per_second), pairs (hosts,
/// bytes_per_second), and rates, which `vqlm plan --measured` takes (measured_rates.h).
std::string to_json(const CollectiveBenchResult& result);

}  // namespace vqlm
