#include "train/resume.h"

#include <spdlog/fmt/fmt.h>

namespace vqlm {
namespace {

/// Keys that shapes alone would not catch, or that deserve a clearer message than a wrong shape.
void check_same_model(const Config& config, const CheckpointReader& checkpoint) {
  const auto check = [&](const char* key, const auto& now, const auto& saved) {
    if (now == saved) return;
    throw UsageError(
        fmt::format("{} = {}, but the checkpoint {} has {}: set it back, or start another run.dir", key, now,
                    checkpoint.folder().string(), saved));
  };
  const ModelConfig& now = config.model;
  const ModelConfig& saved = checkpoint.config().model;
  check("model.d_model", now.d_model, saved.d_model);
  check("model.n_layers", now.n_layers, saved.n_layers);
  check("model.n_heads", now.n_heads, saved.n_heads);
  check("model.n_kv_heads", now.n_kv_heads, saved.n_kv_heads);
  check("model.d_ff", now.d_ff, saved.d_ff);
  check("model.rope_theta", now.rope_theta, saved.rope_theta);
  check("model.norm_eps", now.norm_eps, saved.norm_eps);
  check("model.tie_embeddings", now.tie_embeddings, saved.tie_embeddings);
  const HeadConfig& head = config.head;
  const HeadConfig& saved_head = checkpoint.config().head;
  const auto kind_name = [](HeadKind kind) { return kind == HeadKind::vq ? "vq" : "dense"; };
  check("head.kind", std::string(kind_name(head.kind)), std::string(kind_name(saved_head.kind)));
  check("head.bias", head.bias, saved_head.bias);
  if (head.kind == HeadKind::dense) return;
  check("head.clusters", head.clusters, saved_head.clusters);
  check("head.groups", head.groups, saved_head.groups);
  if (head.groups > 0) check("head.codes", head.codes, saved_head.codes);
}

}  // namespace

std::optional<CheckpointReader> open_newest_checkpoint(const ProcessGrid& grid, const RunFolder& folder,
                                                       const Config& config, const ShardSet& train) {
  const auto found = list_checkpoints(folder.checkpoints());
  if (found.empty()) return std::nullopt;
  CheckpointReader checkpoint(found.back(), grid.world().rank() == 0 ? Verify::yes : Verify::no);
  check_same_model(config, checkpoint);
  check_tokenizer(checkpoint, train);
  return checkpoint;
}

void check_tokenizer(const CheckpointReader& checkpoint, const ShardSet& shards) {
  const std::string trained = checkpoint.tokenizer_sha256();
  if (shards.tokenizer_sha256() == trained) return;
  throw Error(
      fmt::format("{}: tokenized with another tokenizer (sha256 {}) than the checkpoint {} was trained on "
                  "({}); prepare the "
                  "text with --tokenizer {}/tokenizer.model",
                  shards.glob(), shards.tokenizer_sha256().substr(0, 12), checkpoint.folder().string(),
                  trained.substr(0, 12), checkpoint.folder().string()));
}

}  // namespace vqlm
