// How fast a training step is against the machine's matrix products, and where its time and memory go.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/tools/bench/timing_backend.h"

namespace vqlm {

struct StepBenchOptions {
  int warmup = 2;              // steps before the clock runs: first touches of memory, the second records graphs
  int steps = 5;               // timed whole
  int profiled = 2;            // further steps, timed op by op
  Clock clock = wall_seconds;  // of steps, ops and the peak; cpu_seconds: one rank and thread only
};

/// What another program needs to run the same step.
struct StepShape {
  ModelConfig model;
  HeadConfig head;
  std::int64_t seq_len = 0;
  std::int64_t micro_batch = 0;
  std::int64_t micro_batches = 0;  // of a step
};

struct StepBenchResult {
  std::string model;    // its sizes, for people
  std::string machine;  // ranks and device
  std::string dtype;    // of activations and products
  std::string clock;    // "wall", "cpu": seconds are processor time, or "device": between time marks of its stream
  StepShape shape;
  bool graphs = false;   // micro-batches were recorded and replayed
  bool overlap = false;  // reductions ran beside backward, gathers beside forward
  std::string products;  // what run.products_file gave the warm-up's steps, for people; empty: there is none
  double parameters = 0;
  double tokens = 0;  // of a step, over all ranks
  double flops_per_token = 0;
  std::vector<double> seconds;    // of each timed step
  double seconds_head = 0;        // of the last timed step, forward and backward
  double cpu_share = 0;           // processor time / wall time of the timed steps, of this rank
  double matmul_peak_before = 0;  // FLOP/s, all ranks
  double matmul_peak_after = 0;
  std::int64_t matmul_size = 0;  // of the product's three extents
  double mean_nll = 0;  // this rank's rows of the last step, to see that the model learns the tokens' frequencies
  double profiled_seconds = 0;            // of one profiled step
  std::vector<OpTime> ops;                // of one profiled step, this rank
  Backend::MemoryAccount memory;          // this rank
  double resident_bytes = 0;              // the whole process at its peak, this rank
  std::vector<std::string> memory_notes;  // what each MemoryUse holds

  double seconds_per_step() const;   // median
  double tokens_per_second() const;  // of the median step
  /// tokens/s * FLOPs a token / the higher one of the two peaks.
  double mfu() const;
};

/// Trains a model of `config` (resolved; [data] is not read, head.map "random" or else by frequency) on random tokens
/// of a Zipf distribution. Collective over the grid.
StepBenchResult run_step_bench(Backend& backend, const ProcessGrid& grid, const Config& config,
                               const StepBenchOptions& options);

std::string to_text(const StepBenchResult& result);
/// Keys: model, machine, dtype, clock, shape (the keys of a configuration, micro_batches), tokens_per_second,
/// seconds_per_step, seconds_per_step_min, seconds_head, graphs, overlap, products, mfu, flops_per_token, parameters, tokens_per_step,
/// matmul_peak_flops, mean_nll, cpu_share, ops (name, calls, seconds, share, flops_per_second), memory_bytes.
std::string to_json(const StepBenchResult& result);

}  // namespace vqlm
