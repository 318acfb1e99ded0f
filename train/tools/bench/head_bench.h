// The output heads side by side in the same process: forward and backward over the rows of a batch, and decoding one token
// at a time. Dense with all logits at once, dense in chunks, dense of low rank, VQ with member vectors from codes or from the embedding, and the
// published VQ-Logits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "train/engine/stopwatch.h"
#include "train/tools/bench/synthetic_tokens.h"

namespace vqlm {

/// dense_plain: all N x V logits at once; dense: a chunk of rows at a time; low_rank: the same of rank r; vq: as the options say; vq_embedding: members are
/// rows of the input embedding, clusters scored by their means, too (K as in the vq row; the table (V, d) is the model's, its
/// gathering and its gradient are in the head's time); vq_logits: the published method, G = 0, with as many parameters as the
/// vq row, K + Q clusters (left out where the options say G = 0).
enum class BenchedHead { dense_plain, dense, low_rank, vq, vq_embedding, vq_logits };
/// "dense_plain", ...
const char* name_of(BenchedHead head);

struct HeadBenchOptions {
  std::int64_t vocab_size = 50000;  // V
  std::int64_t width = 512;         // d
  std::int64_t rows = 2048;         // N
  std::int64_t rank = 0;            // r of the low-rank head; 0: a quarter of the width
  std::int64_t clusters = 256;      // K
  int groups = 32;                  // G
  int codes = 256;                  // Q
  TokenDistribution targets = TokenDistribution::zipf;
  std::string map = "random";      // "random" or "frequency"
  int repeats = 5;                 // timed passes of each head; rounds of decoding
  std::int64_t decode_tokens = 8;  // of each head, operation and round; 0: no decoding
  std::int64_t top_k = 40;
  double spread = 2;           // of decoding: the standard deviation of a logit over the hidden states
  std::size_t memory = 0;      // bytes that a head may take; 0: what the machine has to give
  double time_limit = 600;     // seconds that the passes of one head may be expected to take
  Clock clock = wall_seconds;  // cpu_seconds: one thread only
  std::uint64_t seed = 1;

  std::int64_t low_rank() const { return rank > 0 ? rank : (width + 3) / 4; }
};

/// One head's forward and backward over all rows.
struct HeadTiming {
  double seconds = 0;  // median
  double seconds_min = 0;
  double flops_per_second = 0;  // 6 per multiply-add of HeadCost, at the median
  double floor_seconds =
      0;             // the longer one of: operations at the products' peak; compulsory bytes at the memory's rate
  double bytes = 0;  // parameters, gradients, map and workspace; not the model's embedding
  std::int64_t matrix_parameters = 0;
  std::int64_t bias_parameters = 0;
  double mean_nll = 0;  // of the untrained head, to see that it did its work
};

/// One operation of decoding, a token at a time.
struct DecodeTiming {
  std::string operation;  // "log_probs" (of all V), "arg_max", "top_k", "sample"
  double seconds = 0;     // a token: median of the rounds
  double seconds_min = 0;
  double bytes = 0;             // that have to be read or written at least, operands once
  double floor_seconds = 0;     // bytes at the memory's rate
  double clusters_visited = 0;  // mean of a token; 0 for what looks at every token

  double bytes_per_second() const { return bytes / seconds; }
};

/// What was measured of one head.
struct HeadResult {
  BenchedHead head = BenchedHead::dense;
  HeadTiming training;
  std::string training_skipped;  // why there is no timing; empty: there is
  std::vector<DecodeTiming> decoding;
  std::string decoding_skipped;

  /// Seconds of a token; 0 where there are none.
  double decode_seconds(const std::string& operation) const;
};

struct HeadBenchResult {
  std::string machine;
  std::string dtype;       // of hidden states, matrices and logits
  double matmul_peak = 0;  // FLOP/s of products in the same process
  double memory_rate = 0;  // bytes/s: the better one of copying (read and written) and reading
  HeadBenchOptions options;
  std::vector<HeadResult> heads;  // in the order of BenchedHead

  /// Null where there is none.
  const HeadResult* find(BenchedHead head) const;
  /// Seconds of the chunked dense head over the VQ head's; 0 where either was skipped.
  double ratio_dense_over_vq() const;
  /// Seconds of a token, dense over `over`, of an operation of decoding; 0 where either was skipped.
  double decode_ratio(const std::string& operation, BenchedHead over = BenchedHead::vq) const;
};

/// Rates of the machine, measured in this process by the clock that the heads are timed with.
struct MachineRates {
  double matmul_peak = 0;  // FLOP/s
  double memory_rate = 0;  // bytes/s
};
/// largest_matrix: numbers of the largest dense head that will be timed; a device's memory is measured on as many, from 2^16
/// to 2^26, so that the arrays are beyond its caches where the heads are.
MachineRates measure_rates(Backend& backend, Clock clock, std::int64_t largest_matrix);

/// Times the heads in turns, so that all meet the same state of the machine. A head that does not fit in memory, or would
/// take too long, is left out with the reason in its place. Throws UsageError for sizes that make no heads, with a choice
/// that does.
HeadBenchResult run_head_bench(Backend& backend, const HeadBenchOptions& options);
HeadBenchResult run_head_bench(Backend& backend, const HeadBenchOptions& options, const MachineRates& rates);

std::string to_text(const HeadBenchResult& result);
/// Keys: ratio_dense_over_vq, seconds_dense, seconds_vq (null where skipped); objects dense_plain, dense, low_rank, vq, vq_embedding
/// and vq_logits with
/// seconds, seconds_min, flops_per_second, floor_seconds, bytes, matrix_parameters, bias_parameters, mean_nll, or skipped (a
/// sentence); decoding: tokens, spread, top_k, ratios_dense_over_vq (by operation) and for all but dense_plain an object
/// of operations log_probs, arg_max, top_k and sample with seconds, seconds_min, bytes, bytes_per_second,
/// floor_seconds and, for the VQ heads, clusters_visited, or skipped; machine, dtype, matmul_peak_flops,
/// memory_bytes_per_second, vocab_size, width, rows, rank, clusters, groups, codes, targets, map.
std::string to_json(const HeadBenchResult& result);

}  // namespace vqlm
