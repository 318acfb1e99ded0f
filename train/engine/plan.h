// Plans: what one rank of a process grid needs and does, without hardware and without data: the program's own engine is built
// and run for one step on a back end and communicators that only count.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.h"
#include "core/model/head/code_map.h"
#include "train/config/config.h"
#include "train/engine/planned_machine.h"

namespace vqlm {

struct PlanOptions {
  DType activation = DType::bf16;  // what the device computes in
  StatedRates rates{};
  const CodeMap* map = nullptr;  // of a VQ or an adaptive head; null: clusters or bands of the configuration's sizes
  int rank = -1;                 // of the job; -1: the last, which holds the largest part of what does not divide
};

// In the order of MemoryUse.
constexpr std::array<std::string_view, memory_use_count> memory_use_names = {"parameters", "gradients", "optimizer",
                                                                             "activations", "workspace"};

/// Bytes of one rank by MemoryUse: what the back end's account says between two steps, the evaluator's buffers included
/// where the configuration names held-out shards. Not counted, because no back end accounts for it: the driver's context,
/// the libraries' and the kernels' scratch memory.
struct MemoryPlan {
  std::array<std::size_t, memory_use_count> bytes{};

  std::size_t total() const;
};

/// The plans take a resolved configuration; its parallel section is the grid. plan_memory runs nothing: milliseconds.
MemoryPlan plan_memory(const Config& config, const PlanOptions& options);

/// One optimizer step of one rank, all its micro-batches.
struct StepPlan {
  MemoryPlan memory;
  double parameters = 0;  // of the whole model
  double tokens = 0;      // of a step, over all ranks
  double flops_per_token = 0;
  std::int64_t micro_batches = 0;
  std::vector<OpCount> ops;  // the slowest first
  std::vector<CollectiveCount> collectives;
  double product_seconds = 0;     // ops bound by operations
  double memory_seconds = 0;      // ops bound by bytes
  double collective_seconds = 0;  // as if each were alone on its link
  double launch_seconds = 0;      // what every op takes beside its work
  double head_seconds = 0;        // compute time of the head, forward and backward
  double seconds = 0;             // gradients are reduced beside backward, parameters gathered beside forward
  double peak_flops = 0;          // what MFU is a share of, all ranks
  double flops = 0;               // of this rank, model and optimizer, what is done again included

  /// What comes after the gradients are reduced: norm, optimizer, what the head makes of the parameters. These are gathered in
  /// the next forward pass.
  struct Update {
    double flops = 0;
    double sent_bytes = 0;
    double seconds = 0;
  };
  Update update;

  double seconds_without_overlap() const {
    return product_seconds + memory_seconds + launch_seconds + collective_seconds;
  }
  /// The part of `seconds` in which no op runs because a collective's result is awaited.
  double waiting_seconds() const { return seconds - product_seconds - memory_seconds - launch_seconds; }
  double tokens_per_second() const { return tokens / seconds; }
  double mfu() const { return tokens_per_second() * flops_per_token / peak_flops; }
};

StepPlan plan_step(const Config& config, const PlanOptions& options);

/// What train.recompute costs and spares a rank, against the same step without.
struct RecomputationCost {
  double flops = 0;    // done again
  double seconds = 0;  // longer
  double bytes = 0;    // spared
};
/// step: the configuration's plan.
RecomputationCost recomputation_cost(const Config& config, const PlanOptions& options, const StepPlan& step);

/// A change of the configuration, and what one rank needs with it.
struct MemoryChange {
  std::string change;  // "train.micro_batch = 4"
  std::size_t bytes = 0;
  bool fits = false;
};

/// The largest train.micro_batch that the other keys allow and that needs at most `available` bytes; none: not even the
/// smallest one does.
std::optional<std::int64_t> largest_micro_batch(const Config& config, const PlanOptions& options,
                                                std::size_t available);

/// Single changes that need less memory, as far as the configuration allows them: a smaller micro-batch, more tensor ranks
/// or data ranks, shorter sequences, the VQ head in place of the dense one.
std::vector<MemoryChange> memory_changes(const Config& config, const PlanOptions& options, std::size_t available);

/// What a rank keeps free of a device with `total_bytes` for what no back end accounts for: the driver's context, NCCL's
/// buffers, graphs, cuBLASLt and kernels' scratch memory. 1 GiB, or a tenth of a smaller device.
std::size_t unaccounted_bytes(std::size_t total_bytes);

/// What the run needs. Throws Error where that is more than `free_bytes`: what it needs and for what, what is free, and the changes that
/// make it fit. To be called before anything is allocated.
MemoryPlan require_memory(const Config& config, const PlanOptions& options, std::size_t free_bytes);

}  // namespace vqlm
