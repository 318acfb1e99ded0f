// Runs side by side: what `vqlm report` prints and draws, from each run's config.toml, metrics.jsonl and eval.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "train/records/metrics.h"

namespace vqlm {

struct LossPoint {
  double tokens = 0;   // trained on
  double loss = 0;     // nats per token
  double seconds = 0;  // of the run's steps so far
};

/// A run as far as its folder tells; what it does not tell is absent.
struct RunSummary {
  std::string name;
  std::filesystem::path folder;
  HeadKind head_kind = HeadKind::dense;
  bool tied = false;                          // the head's matrix is the embedding table
  std::string head;                           // "dense", "vq K=128 G=32 Q=128"
  std::optional<std::int64_t> parameters;     // of the whole model
  std::optional<std::int64_t> head_matrices;  // numbers in the output layer's matrices
  std::optional<std::int64_t> head_biases;
  std::optional<double> fraction_of_dense;  // head_matrices / (V d)
  std::optional<double> tokens_per_second;  // median over the steps
  std::optional<double> head_seconds;       // a step, median
  std::optional<double> perplexity;         // eval.json, else the last held-out evaluation
  std::optional<double> bits_per_byte;
  std::optional<std::int64_t> steps, tokens;  // trained
  std::int64_t seed = 0;
  std::int64_t map_tokens = 0;  // that a VQ head's map was counted on; 0: none, or not known
  double trained_tokens = 0;    // Config::trained_tokens()
  // What a perplexity is one of: such that agree in all of it can be compared.
  std::optional<std::string> tokenizer;    // hash
  std::optional<std::string> heldout_set;  // fingerprint of the shards
  std::int64_t vocab_size = 0;             // 0 where it is not known
  std::int64_t seq_len = 0;                // of the evaluation's samples
  std::optional<std::int64_t> evaluated;   // predicted tokens
  bool partial = false;                    // not the whole held-out text
  // Of eval.json, where it has them: predicted tokens and losses (sums, nats) of the documents.
  std::vector<double> document_tokens, document_nll;
  // By name, of runs with several: held-out perplexities, and losses smoothed over the last steps.
  std::map<std::string, double> set_perplexities, source_losses;
  // Jobs that went on with the run, and what was lost by that (LostTime).
  int resumed = 0;
  LostTime lost;
  std::vector<LossPoint> train;    // one a step
  std::vector<LossPoint> heldout;  // evaluations while training
};

/// Reads a run folder. Throws Error where there is no config.toml, or a file is there but not what it should be.
RunSummary summarize_run(const std::filesystem::path& run);

/// Why the perplexities of two runs cannot be compared, as far as their folders tell; empty where they can.
std::vector<std::string> incomparable(const RunSummary& run, const RunSummary& other);

/// The relative difference of two perplexities, -0.1: 10 % lower than the other's, with its 95 % interval.
struct PairedDifference {
  double relative = 0;
  double low = 0, high = 0;
};
/// From the losses of the same documents (ratio estimator, normal quantile), which differ far less between models than between
/// documents; none where either run has no losses of documents, or they are of others.
std::optional<PairedDifference> paired_difference(const RunSummary& run, const RunSummary& other);

/// The training loss that every one of these runs has come to, smoothed over 50 steps, and the seconds of steps that each took to
/// it; none for fewer than two runs, or for runs whose losses are of other tokens.
struct TimeToLoss {
  double loss = 0;
  std::vector<double> seconds;  // in the order of the runs
};
std::optional<TimeToLoss> time_to_loss(const std::vector<RunSummary>& runs);

/// Two tables with a row for each run, in order, and notes: the models, and what they have come to, with the time to a loss that
/// all of them reached, the last column compared with the first dense run; two more where runs have held-out sets or sources by
/// name; how much text each code map saw; and what runs that were continued lost. At most 120 columns: long names are cut.
std::string report_table(const std::vector<RunSummary>& runs);

/// Running mean with weights 1 / window (bias-corrected at the start).
std::vector<LossPoint> smooth(const std::vector<LossPoint>& points, int window);

}  // namespace vqlm
