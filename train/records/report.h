// Runs side by side: what `vqlm report` prints and draws, from each run's config.toml, metrics.jsonl and eval.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/model_config.h"

namespace vqlm {

struct LossPoint {
  double tokens = 0;  // trained on
  double loss = 0;    // nats per token
};

/// A run as far as its folder tells; what it does not tell is absent.
struct RunSummary {
  std::string name;
  HeadKind head_kind = HeadKind::dense;
  std::string head;                           // "dense", "vq K=128 G=32 Q=128"
  std::optional<std::int64_t> head_matrices;  // numbers in the output layer's matrices
  std::optional<std::int64_t> head_biases;
  std::optional<double> fraction_of_dense;  // head_matrices / (V d)
  std::optional<double> tokens_per_second;  // median over the steps
  std::optional<double> head_seconds;       // a step, median
  std::optional<double> perplexity;         // eval.json, else the last held-out evaluation
  std::optional<double> bits_per_byte;
  std::vector<LossPoint> train;    // one a step
  std::vector<LossPoint> heldout;  // evaluations while training
};

/// Reads a run folder. Throws Error where there is no config.toml, or a file is there but not what it should be.
RunSummary summarize_run(const std::filesystem::path& run);

/// A row for each run, in order. The last column is the perplexity relative to the first dense run's.
std::string report_table(const std::vector<RunSummary>& runs);

/// Running mean with weights 1 / window (bias-corrected at the start).
std::vector<LossPoint> smooth(const std::vector<LossPoint>& points, int window);

}  // namespace vqlm
