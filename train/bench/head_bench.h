// The dense and the VQ head side by side: forward and backward on the same hidden states in the same process.
#pragma once

#include <cstdint>
#include <string>

#include "core/backend.h"
#include "train/bench/synthetic_tokens.h"
#include "train/stopwatch.h"

namespace vqlm {

struct HeadBenchOptions {
  std::int64_t vocab_size = 50000;  // V
  std::int64_t width = 512;         // d
  std::int64_t rows = 2048;         // N
  std::int64_t clusters = 256;      // K
  int groups = 32;                  // G
  int codes = 256;                  // Q
  TokenDistribution targets = TokenDistribution::zipf;
  std::string map = "random";  // "random" or "frequency"
  int repeats = 5;             // timed passes of each head
  Clock clock = wall_seconds;  // cpu_seconds: one thread only
  std::uint64_t seed = 1;
};

/// One head's forward and backward over all rows.
struct HeadTiming {
  double seconds = 0;  // median
  double seconds_min = 0;
  double flops_per_second = 0;  // 6 per multiply-add of HeadCost, at the median
  double bytes = 0;             // parameters, gradients, map and workspace
  std::int64_t matrix_parameters = 0;
  std::int64_t bias_parameters = 0;
  double mean_nll = 0;  // of the untrained head, to see that it did its work
};

struct HeadBenchResult {
  std::string machine;
  std::string dtype;       // of hidden states, matrices and logits
  double matmul_peak = 0;  // FLOP/s of products in the same process
  HeadBenchOptions options;
  HeadTiming dense;
  HeadTiming vq;

  double ratio_dense_over_vq() const { return dense.seconds / vq.seconds; }
};

/// Times both heads in turns, so that both meet the same state of the machine. Throws UsageError for sizes that make no
/// heads, with a choice that does.
HeadBenchResult run_head_bench(Backend& backend, const HeadBenchOptions& options);

std::string to_text(const HeadBenchResult& result);
/// Keys: ratio_dense_over_vq, seconds_dense, seconds_vq, and objects dense and vq with seconds, seconds_min,
/// flops_per_second, bytes, matrix_parameters, bias_parameters, mean_nll; machine, dtype, matmul_peak_flops, vocab_size, width, rows, clusters, groups, codes.
std::string to_json(const HeadBenchResult& result);

}  // namespace vqlm
