// Log-probabilities of given tokens, for what judges a model by them (`vqlm score`). Sequences of about the same length go
// through the model together; no N x V array is made.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/transformer.h"
#include "dist/process_grid.h"
#include "train/tools/score/score_request.h"

namespace vqlm {

struct SequenceScore {
  std::vector<double> log_probs;  // of the scored tokens, nats
  bool greedy = false;            // each of them is the most probable one in its place
};

class Scorer {
 public:
  /// A model for evaluation, of B samples of T tokens, on one tensor rank; it, the back end and the grid must outlive the
  /// scorer.
  Scorer(Backend& backend, const ProcessGrid& grid, Transformer& model);

  /// Scores of the sequences, each of at most T + 1 tokens, in their order. Collective over the grid, whose ranks take turns
  /// at batches; the same result on every rank and for every number of them, up to the rounding of other batches.
  std::vector<SequenceScore> run(std::span<const ScoredSequence* const> sequences);

 private:
  /// Indices into the sequences, all in rows of seq_len tokens.
  struct Batch {
    BatchShape shape;
    std::vector<std::size_t> sequences;
  };
  std::vector<Batch> batches_of(std::span<const ScoredSequence* const> sequences) const;
  void score(const Batch& batch, std::span<const ScoredSequence* const> sequences, std::vector<SequenceScore>& scores);
  bool is_greedy(const ScoredSequence& sequence, const SequenceScore& score, std::int64_t first_row);

  Backend& backend_;
  const ProcessGrid& grid_;
  Transformer& model_;
  BatchShape largest_;
  Buffer ids_;  // (2, N): tokens and targets
  Buffer nll_;  // (N)
};

}  // namespace vqlm
