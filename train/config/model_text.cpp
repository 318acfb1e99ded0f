#include "train/config/model_text.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "train/config/enum_words.h"
#include "train/config/ngram_tables.h"

namespace vqlm {
namespace {

std::string vq_head_text(const VqHeadConfig& head) {
  std::string text = fmt::format("vq K={}", head.clusters);
  if (head.by_embedding()) {
    text += " E";
  } else {
    text += fmt::format(" G={}", head.groups());
    if (head.groups() > 0) text += fmt::format(" Q={}", head.codes());
  }
  if (head.member_mean()) text += " mean";
  if (head.input_codes) text += " input codes";
  return text;
}

/// "V/8 V/2" where the configuration leaves them to the vocabulary.
std::string cutoffs_text(const AdaptiveHeadConfig& head) {
  return head.cutoffs.empty() ? "V/8 V/2" : fmt::format("{}", fmt::join(head.cutoffs, " "));
}

std::string adaptive_head_text(const AdaptiveHeadConfig& head) {
  return fmt::format("adaptive at {} ratio {}", cutoffs_text(head), head.tail_ratio);
}

}  // namespace

std::string head_text(const ModelConfig& model, const HeadConfig& head) {
  const auto* vq = vq_of(head);
  const auto* low_rank = low_rank_of(head);
  const auto* adaptive = adaptive_of(head);
  std::string text = vq != nullptr         ? vq_head_text(*vq)
                     : adaptive != nullptr ? adaptive_head_text(*adaptive)
                     : low_rank != nullptr ? fmt::format("low_rank r={}", low_rank->rank)
                                           : "dense";
  if (model.tie_embeddings) text += " tied";
  if (const int heads = future_of(head).heads; heads > 0) text += fmt::format(" future {}", heads);
  if (const float cap = softcap_of(head); cap > 0) text += fmt::format(" softcap {}", cap);
  return has_bias(head) ? text : text + " no bias";
}

namespace {

std::string next_token_sentence(const HeadConfig& head) {
  const bool bias = has_bias(head);
  const VqHeadConfig* const vq = vq_of(head);
  if (const auto* low_rank = low_rank_of(head)) {
    return fmt::format("dense of rank {}{}", low_rank->rank, bias ? ", with a token bias" : ", no bias");
  }
  if (const auto* adaptive = adaptive_of(head)) {
    return fmt::format("adaptive softmax: {} bands cut at {}, each tail band {} times narrower{}", adaptive->bands(),
                       cutoffs_text(*adaptive), adaptive->tail_ratio, bias ? ", with a token bias" : ", no bias");
  }
  if (vq == nullptr) {
    const float cap = softcap_of(head);
    return std::string(bias ? "dense, with a token bias" : "dense, no bias") +
           (cap > 0 ? fmt::format(", logits capped at {}", cap) : "");
  }
  std::string text = fmt::format("VQ: {} clusters, {} groups", vq->clusters, vq->groups());
  if (vq->groups() > 0) text += fmt::format(" of {} codes", vq->codes());
  if (vq->by_embedding()) {
    text = fmt::format("VQ: {} clusters, members by the embedding's rows", vq->clusters);
    if (vq->member_mean()) text += ", their mean added to the cluster's code";
  }
  if (vq->input_codes) text += ", a vector of each cluster at the input";
  return text + (bias ? ", with a token bias" : ", no token bias");
}

}  // namespace

std::string head_sentence(const HeadConfig& head) {
  const int heads = future_of(head).heads;
  if (heads == 0) return next_token_sentence(head);
  return fmt::format("{}; {} head{} for the token{} behind the next one", next_token_sentence(head), heads,
                     heads == 1 ? "" : "s", heads == 1 ? "" : "s");
}

std::string body_text(const ModelConfig& model) {
  const ModelConfig llama;
  std::string text;
  const auto say = [&](bool differs, const char* key, const auto& value) {
    if (differs) text += fmt::format(", {} {}", key, value);
  };
  say(model.head_width != 0, "head_dim", model.head_width);
  say(model.attention_bias, "attention_bias", true);
  say(model.qk_norm != llama.qk_norm, "qk_norm", word_of(model.qk_norm));
  say(model.norm_placement != llama.norm_placement, "norm_placement", word_of(model.norm_placement));
  say(model.activation != llama.activation, "activation", word_of(model.activation));
  say(model.nope_every != 0, "nope_every", model.nope_every);
  say(model.embedding_scale != 1, "embedding_scale", model.embedding_scale);
  say(model.attention_scale != 0, "attention_scale", model.attention_scale);
  say(model.window != 0, "window", model.window);
  say(model.window_pattern != 0, "window_pattern", model.window_pattern);
  say(model.window_rope_theta != 0, "window_rope_theta", model.window_rope_theta);
  say(!model.ngram_tables.empty(), "input tables", ngram_tables_text(model.ngram_tables));
  return text;
}

std::string model_text(const Config& config) {
  const ModelConfig& m = config.model;
  return fmt::format("d {}, {} layers, {} heads ({} kv), d_ff {}{}, vocabulary {}, T {}, head {}", m.d_model,
                     m.n_layers, m.n_heads, m.n_kv_heads, m.d_ff, body_text(m), m.vocab_size, config.data.seq_len,
                     head_text(m, config.head));
}

}  // namespace vqlm
