#include "train/checkpoint/logical_tensors.h"

namespace vqlm {
namespace {

void append_layer(std::vector<LogicalTensor>& tensors, const ModelConfig& model, int layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const std::int64_t d = model.d_model;
  const std::int64_t keys = std::int64_t{model.n_kv_heads} * model.head_dim();
  tensors.push_back({prefix + "input_layernorm.weight", {d}});
  tensors.push_back({prefix + "self_attn.q_proj.weight", {d, d}});
  tensors.push_back({prefix + "self_attn.k_proj.weight", {keys, d}});
  tensors.push_back({prefix + "self_attn.v_proj.weight", {keys, d}});
  tensors.push_back({prefix + "self_attn.o_proj.weight", {d, d}});
  tensors.push_back({prefix + "post_attention_layernorm.weight", {d}});
  tensors.push_back({prefix + "mlp.gate_proj.weight", {model.d_ff, d}});
  tensors.push_back({prefix + "mlp.up_proj.weight", {model.d_ff, d}});
  tensors.push_back({prefix + "mlp.down_proj.weight", {d, model.d_ff}});
}

}  // namespace

std::vector<LogicalTensor> head_tensors(const ModelConfig& model, const HeadConfig& head) {
  const std::int64_t vocab = model.vocab_size;
  const std::int64_t d = model.d_model;
  std::vector<LogicalTensor> tensors;
  if (head.kind == HeadKind::dense) {
    if (!model.tie_embeddings) tensors.push_back({"lm_head.weight", {vocab, d}});
    if (head.bias) tensors.push_back({"lm_head.bias", {vocab}});
    return tensors;
  }
  tensors.push_back({"vq_head.codebook", {head.clusters, d}});
  if (head.groups > 0) {
    tensors.push_back({"vq_head.member_codebook", {head.groups, head.codes, d / head.groups}});
  }
  tensors.push_back({"vq_head.cluster_bias", {head.clusters}});
  if (head.input_codes) tensors.push_back({"vq_head.input_codebook", {head.clusters, d}});
  if (head.bias) tensors.push_back({"vq_head.token_bias", {vocab}});
  return tensors;
}

std::vector<LogicalTensor> logical_tensors(const ModelConfig& model, const HeadConfig& head) {
  std::vector<LogicalTensor> tensors = {{"model.embed_tokens.weight", {model.vocab_size, model.d_model}}};
  for (int layer = 0; layer < model.n_layers; ++layer) append_layer(tensors, model, layer);
  tensors.push_back({"model.norm.weight", {model.d_model}});
  for (LogicalTensor& tensor : head_tensors(model, head)) tensors.push_back(std::move(tensor));
  return tensors;
}

}  // namespace vqlm
