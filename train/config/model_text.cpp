#include "train/config/model_text.h"

#include <spdlog/fmt/fmt.h>

namespace vqlm {
namespace {

std::string vq_head_text(const HeadConfig& head) {
  std::string text = fmt::format("vq K={}", head.clusters);
  if (head.members == MemberVectors::embedding) {
    text += " E";
  } else {
    text += fmt::format(" G={}", head.groups);
    if (head.groups > 0) text += fmt::format(" Q={}", head.codes);
  }
  if (head.member_mean) text += " mean";
  if (head.input_codes) text += " input codes";
  return text;
}

}  // namespace

std::string head_text(const ModelConfig& model, const HeadConfig& head) {
  std::string text = head.kind == HeadKind::vq ? vq_head_text(head) : model.tie_embeddings ? "dense tied" : "dense";
  return head.bias ? text : text + " no bias";
}

std::string model_text(const Config& config) {
  const ModelConfig& m = config.model;
  return fmt::format("d {}, {} layers, {} heads ({} kv), d_ff {}, vocabulary {}, T {}, head {}", m.d_model, m.n_layers,
                     m.n_heads, m.n_kv_heads, m.d_ff, m.vocab_size, config.data.seq_len, head_text(m, config.head));
}

}  // namespace vqlm
