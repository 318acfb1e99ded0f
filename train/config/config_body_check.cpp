#include "train/config/config_body_check.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "train/config/enum_words.h"
#include "train/config/ngram_tables.h"

namespace vqlm {
namespace {

void check_window(const ModelConfig& model) {
  if (model.window == 0 && model.window_pattern != 0) {
    throw UsageError(fmt::format(
        "model.window_pattern = {} with model.window = 0 would change nothing: choose a window, or window_pattern = 0",
        model.window_pattern));
  }
  if (model.window == 0 && model.window_rope_theta != 0) {
    throw UsageError(fmt::format(
        "model.window_rope_theta = {} with model.window = 0 would change nothing: choose a window, or window_rope_theta = 0",
        model.window_rope_theta));
  }
  if (model.window_pattern == 1) {
    throw UsageError(
        "model.window_pattern = 1 lets every layer see all positions: choose window = 0, or window_pattern = 2 or more");
  }
}

/// Gradients by rows are those of a table that only the input reads.
void check_embedding_by_rows(const Config& config) {
  const auto* vq = vq_of(config.head);
  const bool scores = config.model.tie_embeddings || (vq != nullptr && vq->by_embedding());
  if (scores) {
    throw UsageError(fmt::format(
        "optim.embedding_update = \"rows\" with {}: the head reads the embedding, so that every row has a gradient in every step; "
        "choose embedding_update = \"dense\", or another head (an untied dense or low-rank one, members = \"codes\" or \"none\")",
        config.model.tie_embeddings ? "model.tie_embeddings = true" : "head.members = \"embedding\""));
  }
  const OptimSection& optim = config.optim;
  if (optim.weight_decay * optim.embedding.decay_ratio == 0) return;
  throw UsageError(fmt::format(
      "optim.embedding_update = \"rows\" with optim.embedding_decay_ratio = {}: rows that a step does not touch would not decay; "
      "choose embedding_decay_ratio = 0, or embedding_update = \"dense\"",
      optim.embedding.decay_ratio));
}

}  // namespace

void normalize_body(ModelConfig& model) {
  if (std::int64_t{model.head_width} * model.n_heads == model.d_model) model.head_width = 0;
  if (model.attention_scale == static_cast<float>(model.head_dim())) model.attention_scale = 0;
  const bool unscaled = model.rope_scaling.kind == RopeScaling::Kind::none;
  if (unscaled && model.window_rope_theta == model.rope_theta) model.window_rope_theta = 0;
}

void mark_documents(Config& config, std::int32_t eos_id, const std::string& shards) {
  if (config.data.document_mask && eos_id < 0) {
    throw UsageError(fmt::format(
        "data.document_mask = true, but no token ends documents in {}: prepare ids with --eos, or set document_mask = false",
        shards));
  }
  config.model.document_end = config.data.document_mask ? eos_id : -1;
}

void check_body(const Config& config) {
  const ModelConfig& model = config.model;
  check_window(model);
  if (model.zero_init_outputs && model.norm_placement != NormPlacement::pre) {
    throw UsageError(fmt::format(
        "model.zero_init_outputs = true with model.norm_placement = \"{}\": the norm of a branch that is zero multiplies its "
        "gradient by 1 / sqrt(norm_eps); choose zero_init_outputs = false, or norm_placement = \"pre\"",
        word_of(model.norm_placement)));
  }
  const auto* vq = vq_of(config.head);
  if (vq != nullptr && vq->input_codes && model.embedding_scale != 1) {
    throw UsageError(fmt::format(
        "model.embedding_scale = {} with head.input_codes = true: the clusters' vectors would be added to rows of another "
        "scale; choose input_codes = false, or embedding_scale = 1",
        model.embedding_scale));
  }
  const OptimSection& optim = config.optim;
  if (!model.ngram_tables.empty() && optim.input_tables_update == TableUpdate::rows &&
      optim.weight_decay * optim.input_tables.decay_ratio != 0) {
    throw UsageError(fmt::format(
        "optim.input_tables_update = \"rows\" with optim.input_tables_decay_ratio = {}: rows that a step does not touch would "
        "not decay; choose input_tables_decay_ratio = 0, or input_tables_update = \"dense\"",
        optim.input_tables.decay_ratio));
  }
  if (optim.embedding_update == TableUpdate::rows) check_embedding_by_rows(config);
  if (!model.ngram_tables.empty() && low_rank_of(config.head) != nullptr && model.tie_embeddings) {
    throw UsageError(fmt::format(
        "input.tables = {} with head.kind = \"low_rank\" and model.tie_embeddings = true: the embedding has rows of head.rank "
        "numbers there; choose input.tables=[], or tie_embeddings = false",
        ngram_tables_text(model.ngram_tables)));
  }
  if (!model.ngram_tables.empty() && model.embedding_scale != 1) {
    throw UsageError(fmt::format(
        "model.embedding_scale = {} with input.tables = {}: no class of transformers scales both alike; choose "
        "input.tables=[], or embedding_scale = 1",
        model.embedding_scale, ngram_tables_text(model.ngram_tables)));
  }
}

}  // namespace vqlm
