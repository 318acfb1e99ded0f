#include "train/config/model_text.h"

#include <spdlog/fmt/fmt.h>

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

}  // namespace

std::string head_text(const ModelConfig& model, const HeadConfig& head) {
  const auto* vq = vq_of(head);
  const std::string text = vq != nullptr ? vq_head_text(*vq) : model.tie_embeddings ? "dense tied" : "dense";
  return has_bias(head) ? text : text + " no bias";
}

std::string head_sentence(const HeadConfig& head) {
  const bool bias = has_bias(head);
  const VqHeadConfig* const vq = vq_of(head);
  if (vq == nullptr) return bias ? "dense, with a token bias" : "dense, no bias";
  std::string text = fmt::format("VQ: {} clusters, {} groups", vq->clusters, vq->groups());
  if (vq->groups() > 0) text += fmt::format(" of {} codes", vq->codes());
  if (vq->by_embedding()) {
    text = fmt::format("VQ: {} clusters, members by the embedding's rows", vq->clusters);
    if (vq->member_mean()) text += ", their mean added to the cluster's code";
  }
  if (vq->input_codes) text += ", a vector of each cluster at the input";
  return text + (bias ? ", with a token bias" : ", no token bias");
}

std::string model_text(const Config& config) {
  const ModelConfig& m = config.model;
  return fmt::format("d {}, {} layers, {} heads ({} kv), d_ff {}, vocabulary {}, T {}, head {}", m.d_model, m.n_layers,
                     m.n_heads, m.n_kv_heads, m.d_ff, m.vocab_size, config.data.seq_len, head_text(m, config.head));
}

}  // namespace vqlm
