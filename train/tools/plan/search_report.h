// What `vqlm plan --search` says.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "train/tools/plan/plan_search.h"

namespace vqlm {

struct SearchReport {
  Config config;  // as searched
  PlanSearch search;
  SearchResult result;
  std::size_t device_memory = 0;
  std::size_t reserve = 0;
  std::size_t top = 10;            // lines of the table
  std::vector<std::string> notes;  // what was assumed or replaced

  /// Why there is nothing to choose, and the way out; empty where something fits.
  std::string nothing_fits() const;
};

/// "h100-80 (H100 SXM, 80 GB), 8 a node".
std::string cluster_text(const Cluster& cluster);
/// "predicted, not measured: 80 % of 989.4 TFLOP/s, ...": the rates, and what of them is assumed to be reached.
std::string rates_text(const Cluster& cluster);

std::string to_text(const SearchReport& report);
/// Keys: model, tokens_per_step, gpus, gpus_per_node, gpu, assumptions, notes, device_memory_bytes, reserve_bytes,
/// available_bytes, choices (counts), refused, ranked (all that fit, the fastest first) and too_large (the one that needs
/// least first).
std::string to_json(const SearchReport& report);

}  // namespace vqlm
