#include "train/checkpoint/resume.h"

#include <spdlog/fmt/fmt.h>

#include "core/log.h"
#include "train/host_collectives.h"

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
  const RopeScaling &rope = now.rope_scaling, &saved_rope = saved.rope_scaling;
  const auto scaling_name = [](RopeScaling::Kind kind) {
    return kind == RopeScaling::Kind::none ? "none" : kind == RopeScaling::Kind::linear ? "linear" : "llama3";
  };
  check("model.rope_scaling", std::string(scaling_name(rope.kind)),
        std::string(scaling_name(saved_rope.kind)));
  check("model.rope_factor", rope.factor, saved_rope.factor);
  check("model.rope_low_freq_factor", rope.low_freq_factor, saved_rope.low_freq_factor);
  check("model.rope_high_freq_factor", rope.high_freq_factor, saved_rope.high_freq_factor);
  check("model.rope_original_positions", rope.original_positions, saved_rope.original_positions);
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

/// Keys that say which samples come next.
void check_same_samples(const Config& config, const CheckpointReader& checkpoint) {
  const auto check = [&](const char* key, std::int64_t now, std::int64_t saved) {
    if (now == saved) return;
    throw UsageError(fmt::format(
        "{} = {}, but the checkpoint {} has {}: samples would be lost or repeated; set it back, or "
        "start another run.dir",
        key, now, checkpoint.folder().string(), saved));
  };
  check("train.seed", config.train.seed, checkpoint.config().train.seed);
  check("data.seq_len", config.data.seq_len, checkpoint.config().data.seq_len);
}

/// The folder name of the newest complete checkpoint, empty where there never was one. Throws Error where checkpoints are
/// there and none can be read.
std::string newest_checkpoint(const std::filesystem::path& folder) {
  std::vector<std::string> unreadable;
  const auto found = list_checkpoints(folder, &unreadable);
  if (found.empty() && !unreadable.empty()) {
    throw Error(
        fmt::format("--resume: no checkpoint in {} can be read: {}", folder.string(), unreadable.front()));
  }
  for (const std::string& reason : unreadable) log::warn("passed over: {}", reason);
  return found.empty() ? "" : found.back().filename().string();
}

}  // namespace

std::optional<CheckpointReader> open_newest_checkpoint(Backend& backend, const ProcessGrid& grid,
                                                       const RunFolder& folder, const Config& config,
                                                       const ShardSet& train) {
  const bool root = grid.world().rank() == 0;
  // One rank chooses: what a shared file system shows may differ from rank to rank.
  std::vector<std::uint8_t> name;
  if (root) {
    if (std::filesystem::exists(folder.path() / "manifest.json")) {
      throw UsageError(fmt::format(
          "run.dir = {}: a checkpoint, not a run's folder; start a run from it with --init {} and "
          "another run.dir",
          folder.path().string(), folder.path().string()));
    }
    const std::string newest = newest_checkpoint(folder.checkpoints());
    name.assign(newest.begin(), newest.end());
  }
  broadcast_from(backend, grid.world(), 0, name);
  if (name.empty()) return std::nullopt;
  const auto wait = grid.world().expect_long_wait("comparing the checkpoint with its manifest");
  CheckpointReader checkpoint(folder.checkpoints() / std::string(name.begin(), name.end()),
                              root ? Verify::yes : Verify::no);
  grid.world().barrier();
  if (checkpoint.train_tokens() == 0) {
    throw UsageError(
        fmt::format("{}: a converted model without optimizer state, nothing to resume; start a run from it "
                    "with --init {} "
                    "and another run.dir",
                    checkpoint.folder().string(), checkpoint.folder().string()));
  }
  check_same_model(config, checkpoint);
  check_same_samples(config, checkpoint);
  check_tokenizer(checkpoint, train);
  const auto tokens = static_cast<std::int64_t>(train.total_tokens());
  if (tokens != checkpoint.train_tokens()) {
    throw Error(fmt::format(
        "{}: {} tokens, but the run was trained on {}; its order of samples exists for those shards "
        "only: name them again, or start another run.dir",
        train.glob(), tokens, checkpoint.train_tokens()));
  }
  if (root && config.head.kind == HeadKind::vq && config.head.map != checkpoint.config().head.map) {
    log::warn("head.map = {}: not read; the run goes on with the map that its checkpoint holds",
              config.head.map);
  }
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
