// What `vqlm plan` says, and the words for sizes that it reads.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/engine/plan.h"

namespace vqlm {

/// "80GB" (decimal), "80GiB" (binary), "512M" = "512MB", "1e9B". Throws UsageError naming `option` and the text; for a number
/// without a unit, too.
std::size_t parse_bytes(const std::string& text, std::string_view option);

/// "8x2": data x tensor, each at least 1. Throws UsageError.
ParallelSection parse_grid(const std::string& text);

struct PlanReport {
  Config config;  // resolved
  PlanOptions options;
  StepPlan step;
  RecomputationCost recomputation;
  std::vector<std::string> notes;  // what was assumed or replaced
  std::string machine;             // where a kind of GPU was named: what it is, and its rates
  // Where a device's memory is known:
  std::optional<std::size_t> device_memory;
  std::size_t reserve = 0;  // of it, for what no back end accounts for
  std::vector<MemoryChange> changes;
  std::optional<std::int64_t> largest_micro_batch;

  std::size_t available() const { return device_memory && *device_memory > reserve ? *device_memory - reserve : 0; }
  bool fits() const { return !device_memory || step.memory.total() <= available(); }
};

/// Plans the step, and with a device's memory what fits it. config must be resolved.
PlanReport make_plan_report(const Config& config, const PlanOptions& options, std::optional<std::size_t> device_memory,
                            std::size_t reserve, std::vector<std::string> notes, std::string machine = {});

std::string to_text(const PlanReport& report);
/// Keys: model, grid, dtype, rates, notes, memory_bytes, recompute, device_memory_bytes, reserve_bytes, fits,
/// largest_micro_batch, changes, ops, collectives, flops, update (StepPlan::Update), seconds, tokens_per_second, mfu and the
/// sums; absent where there is nothing to say.
std::string to_json(const PlanReport& report);

}  // namespace vqlm
