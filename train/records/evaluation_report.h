// An evaluation for people and for programs.
#pragma once

#include <string>

#include "core/model/head/output_head.h"
#include "train/config/config.h"
#include "train/engine/evaluator.h"

namespace vqlm {

/// What was evaluated on what.
struct EvaluationSubject {
  std::string checkpoint;
  std::string data;
  const Config& config;
  HeadCost head;
  std::int64_t parameters;       // of the whole model
  double flops_per_token;        // of training at this seq_len, all by gradient: Transformer::flops_per_token()
  std::string tokenizer_sha256;  // of the shards; empty where they do not tell
  std::string data_fingerprint;  // ShardSet::fingerprint()
  bool complete;                 // every token of the shards but the first was predicted
  std::int64_t map_tokens = 0;   // that a VQ head's map was counted on; 0: none, or not known
  double trained_tokens = 0;     // Config::trained_tokens() of the run; 0: not known
};

/// One JSON object: nll, perplexity, bits_per_byte and bytes (both left out where not known), tokens, documents, nll_ci95
/// [low, high] (left out where there is one document), seconds, checkpoint, data, data_fingerprint, tokenizer_sha256, complete,
/// seq_len, model {parameters,
/// training_flops_per_token}, head {kind, parameters, fraction_of_dense, biases, code_bytes, multiply_adds}, code_map
/// {counted_tokens, trained_tokens, times_trained} so far as they are known (the last where it is more than 1), code_usage and
/// parts {cluster_nll, member_nll} for VQ heads, and bands where the evaluation has them: first_rank, last_rank, tokens,
/// share (of the predicted tokens), nll, perplexity, and cluster_nll and member_nll for VQ heads; a band without tokens has
/// no means, and future for heads of later tokens: of each, the nearest first, tokens (positions that have one to predict), nll,
/// perplexity and, on one tensor rank, acceptance (DraftAcceptance). At the end document_losses {tokens, nll}: of each document the predicted tokens and the sum of their losses, each
/// array on one line; vqlm report makes paired differences of them.
std::string evaluation_json(const Evaluation& evaluation, const EvaluationSubject& subject);

/// A few lines.
std::string evaluation_text(const Evaluation& evaluation, const EvaluationSubject& subject);

}  // namespace vqlm
