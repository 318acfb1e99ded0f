// The exact loss on held-out shards, over any process grid.
//
// Context: the held-out stream is cut into samples of seq_len tokens that do not overlap, so the token at place t of a
// sample (from 1) is predicted from the t tokens before it in that sample; every token but the stream's first is predicted
// exactly once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/model/head/code_map.h"
#include "core/model/transformer.h"
#include "data/shards/batch_loader.h"
#include "data/shards/shard_set.h"
#include "dist/process_grid.h"
#include "train/engine/draft_acceptance.h"
#include "train/engine/frequency_bands.h"
#include "train/engine/loss_tally.h"

namespace vqlm {

/// How the targets spread over a VQ head's codes.
struct CodeUsage {
  std::int64_t codes = 0;  // K
  std::int64_t used = 0;   // codes that at least one held-out token has
  double perplexity = 0;   // exp of the entropy of the tokens' code distribution; K when all are used equally
};

/// The predicted tokens whose target belongs to a band.
struct BandLoss {
  FrequencyBands::Band band;
  LossMeans means;
};

/// A head for a later token.
struct FutureEvaluation {
  std::int64_t tokens = 0;                // positions that have one to predict
  double nll = 0;                         // mean over them, nats
  std::optional<double> acceptance = {};  // DraftAcceptance, where it was asked for
};

struct Evaluation {
  double nll = 0;  // mean over the predicted tokens, nats, of the output head
  double perplexity = 0;
  std::optional<double> bits_per_byte;  // nothing where the shards do not tell the bytes of their text
  std::int64_t tokens = 0;              // predicted
  /// UTF-8 bytes of the documents' text, in proportion where the evaluation was cut short; nothing as above.
  std::optional<std::int64_t> bytes;
  std::int64_t documents = 0;  // with at least one predicted token
  // 95 % interval of nll from the documents' losses (ratio estimator, normal quantile); none of a single document.
  std::optional<std::array<double, 2>> nll_ci95;
  std::optional<CodeUsage> code_usage;
  // Means over all predicted tokens in the head's parts; none for heads without clusters. From sums in whole steps (see
  // LossTally): their sum is nll to 2e-9.
  std::optional<double> cluster_nll, member_nll;
  std::vector<BandLoss> bands;  // where the evaluator was given some
  std::vector<FutureEvaluation> future;
  // Of each document with a predicted token, in the stream's order: how many, and the sum of their losses in nats.
  std::vector<double> document_tokens, document_nll;
  double seconds = 0;
};

/// A micro-batch's tokens and losses on the device.
struct EvaluationBuffers {
  EvaluationBuffers() = default;
  EvaluationBuffers(Backend& backend, Transformer& model);
  explicit operator bool() const { return ids != nullptr; }

  // Copies are the same buffers.
  std::shared_ptr<const Buffer> ids;  // (2 + F, N): tokens and targets
  std::shared_ptr<const Buffer> nll;  // (1 + F, n)
};

class Evaluator {
 public:
  /// max_tokens: predicted tokens to stop after, rounded up to whole samples; 0 = all. `map` for a VQ head's code usage,
  /// else null. `bands` (of the model's V) or null. All must outlive the evaluator, which
  /// allocates buffers where it is given none. Throws Error where the stream has fewer than two tokens.
  Evaluator(Backend& backend, const ProcessGrid& grid, Transformer& model, const ShardSet& shards,
            std::int64_t max_tokens, const CodeMap* map, const FrequencyBands* bands = nullptr,
            EvaluationBuffers buffers = {});

  /// From now on also how often drafts of heads for later tokens are accepted: a pass over all V for each position and head.
  /// One tensor rank only, and nothing where the model has no such heads.
  void measure_acceptance();
  /// Collective over the grid; the same result on every rank.
  Evaluation run();

 private:
  /// Sums over this rank's rows, one entry a document or code; then over the grid.
  struct Tally {
    std::vector<double> document_nll;
    std::vector<double> document_tokens;
    std::vector<double> code_tokens;
    LossTally bands;   // one class where there are no bands
    LossTally future;  // a class for each head for a later token
  };
  /// Adds the losses of this rank's rows of heads for later tokens, whose targets (F, N) are given.
  void add_future(const std::vector<std::int32_t>& targets, Tally& tally);
  void summarize_future(const Tally& tally, Evaluation& result);
  /// Adds the losses of this rank's rows of batch `number`, whose targets are given.
  void add_rows(std::int64_t number, const std::vector<std::int32_t>& targets, Tally& tally);
  Evaluation summarize(const Tally& tally);
  void summarize_losses(const LossTally& losses, Evaluation& result) const;

  Backend& backend_;
  const ProcessGrid& grid_;
  Transformer& model_;
  EvalSamples samples_;
  const CodeMap* map_;
  const FrequencyBands* bands_;
  std::vector<ShardSet::Document> documents_;
  std::vector<float> nll_, cluster_nll_;  // (1 + F, n) and (n); cluster_nll_ empty for heads without clusters
  std::optional<DraftAcceptance> acceptance_;
  EvaluationBuffers buffers_;
};

}  // namespace vqlm
