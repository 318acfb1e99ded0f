// The ops that move bytes rather than multiply, against the rate at which this machine copies.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "train/engine/lap_timer.h"

namespace vqlm {

struct OpBenchOptions {
  std::int64_t rows = 4096;     // N; sequences of seq_len where N is a multiple of it, else one of N
  std::int64_t seq_len = 1024;  // T
  std::int64_t width = 1024;    // d
  std::int64_t head_dim = 64;
  std::int64_t d_ff = 2816;         // F
  std::int64_t vocab_size = 16000;  // V
  std::int64_t logit_rows = 1024;   // of a chunk of the dense head's logits
  std::int64_t numbers = 1 << 24;   // of flat arrays: copy, fill, AdamW
  double seconds = 0.2;             // of timed calls of each op
  int laps = 5;                     // that they are measured in
};

/// One op: what it must move at least (every operand read or written once) and how long that takes.
struct OpRate {
  std::string name;
  std::string shape;
  double bytes = 0;
  CallTime time;

  double bytes_per_second() const { return bytes / time.seconds; }
};

struct OpBenchResult {
  std::string machine;
  std::string dtype;
  double copy_rate = 0;  // bytes/s read and written by Backend::copy, the higher one of before and after the ops
  std::vector<OpRate> ops;
};

/// Throws UsageError for sizes that make no shapes.
OpBenchResult run_op_bench(Backend& backend, const OpBenchOptions& options);

std::string to_text(const OpBenchResult& result);
/// Keys: machine, dtype, copy_bytes_per_second, ops: name, shape, bytes, seconds, seconds_min, bytes_per_second,
/// share_of_copy.
std::string to_json(const OpBenchResult& result);

}  // namespace vqlm
