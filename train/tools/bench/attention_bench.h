// Causal attention by itself: forward and backward against the machine's matrix products.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "train/engine/lap_timer.h"

namespace vqlm {

struct AttentionBenchOptions {
  std::vector<std::int64_t> seq_lens = {2048, 4096, 8192};  // T
  std::vector<std::int64_t> head_dims = {64, 128};
  std::int64_t width = 2048;    // heads * head_dim
  std::int64_t sharing = 1;     // query heads of one key/value head
  std::int64_t tokens = 16384;  // B * T, rounded down to whole sequences, at least one
  double seconds = 0.5;         // of timed calls, each way
  int laps = 5;                 // that they are measured in
};

struct AttentionTiming {
  AttentionShape shape;
  CallTime forward;
  CallTime backward;

  /// Operations: two products of B heads T^2 / 2 scores forward (only half of the scores exist), five backward, of which one
  /// recomputes the scores. Published figures count the same.
  double forward_flops() const;
  double backward_flops() const { return 2.5 * forward_flops(); }
};

struct AttentionBenchResult {
  std::string machine;
  std::string dtype;
  double matmul_peak = 0;  // FLOP/s of products in the same process
  std::vector<AttentionTiming> timings;
};

/// Times every T with every head_dim. Throws UsageError for sizes that make no shape.
AttentionBenchResult run_attention_bench(Backend& backend, const AttentionBenchOptions& options);

std::string to_text(const AttentionBenchResult& result);
/// Keys: machine, dtype, matmul_peak_flops, shapes: batch, seq_len, heads, kv_heads, head_dim, and objects forward and backward
/// with seconds, seconds_min, flops_per_second, share_of_peak.
std::string to_json(const AttentionBenchResult& result);

}  // namespace vqlm
