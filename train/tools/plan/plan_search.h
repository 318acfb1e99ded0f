// The search behind `vqlm plan --search`: every grid of so many GPUs, micro-batch and word of train.recompute that the
// configuration allows, planned by the program's own model and ranked by predicted step time under a memory limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/engine/plan.h"
#include "train/tools/plan/gpu_kinds.h"

namespace vqlm {

struct PlanSearch {
  Cluster cluster;
  int gpus = 1;
  std::size_t available = 0;     // bytes of a GPU for what a plan counts
  const CodeMap* map = nullptr;  // as in PlanOptions
};

/// What a step's predicted time is spent on most. communication: the time in which no op runs because a result of
/// another rank is awaited. launches: what ops take beside their work.
enum class Bound { compute, memory_bandwidth, communication, launches };
std::string_view name_of(Bound bound);

/// A configuration of the search and what a rank does with it.
struct PlannedChoice {
  int data = 1;
  int tensor = 1;
  std::int64_t micro_batch = 1;
  Recompute recompute = Recompute::none;
  MemoryPlan memory;
  double seconds = 0;  // of a step
  double tokens_per_second = 0;
  double mfu = 0;
  double product_seconds = 0, memory_seconds = 0, waiting_seconds = 0, launch_seconds = 0;  // together: seconds
  bool fits = false;
  bool limited_by_memory = false;  // the fastest of its grid that fits, and one that does not is faster

  Bound bound() const;
};

/// "4x2, train.micro_batch = 8, train.recompute = cheap".
std::string choice_text(const PlannedChoice& choice);

struct SearchResult {
  double parameters = 0;
  double tokens = 0;                     // of a step, over all ranks
  std::vector<PlannedChoice> fitting;    // the fastest first; of equal ones the one that takes less memory
  std::vector<PlannedChoice> too_large;  // the one that needs least memory first
  std::map<std::string, int> refused;    // how many choices the program refuses, by what it says
  int choices() const;
  /// The fastest choice that does not fit, where it is faster than all that do.
  const PlannedChoice* faster_without_limit() const;
};

/// config: resolved for one rank with train.micro_batch = 1; its grid, micro-batch and recomputation are replaced. For bf16.
SearchResult search_plans(const Config& config, const PlanSearch& search);

}  // namespace vqlm
