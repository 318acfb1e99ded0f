#include "train/run/resume.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <sstream>

#include "core/log.h"
#include "train/checkpoint/checkpoint_verify.h"
#include "core/host_collectives.h"

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
  const auto members_name = [](MemberVectors members) {
    return members == MemberVectors::embedding ? "embedding" : "codes";
  };
  check("head.members", std::string(members_name(head.members)),
        std::string(members_name(saved_head.members)));
  if (head.members == MemberVectors::embedding) {
    check("head.member_rank", head.member_rank, saved_head.member_rank);
    check("head.member_scale", head.member_scale, saved_head.member_scale);
    check("head.member_mean", head.member_mean, saved_head.member_mean);
  }
  check("head.input_codes", head.input_codes, saved_head.input_codes);
  check("head.groups", head.groups, saved_head.groups);
  if (head.groups > 0) check("head.codes", head.codes, saved_head.codes);
  // With ema the checkpoint holds moving averages and no moments of the codes; the other two may be exchanged.
  const auto learning_name = [](CodebookLearning learning) {
    return learning == CodebookLearning::ema          ? "ema"
           : learning == CodebookLearning::commitment ? "commitment"
                                                      : "gradient";
  };
  if (head.learning == CodebookLearning::ema || saved_head.learning == CodebookLearning::ema) {
    check("head.learning", std::string(learning_name(head.learning)),
          std::string(learning_name(saved_head.learning)));
  }
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

/// The names of the checkpoints in `folder`, newest first, and what is wrong with folders that are none, as lines.
struct Candidates {
  std::vector<std::string> names;
  std::vector<std::string> unreadable;
};

Candidates list_candidates(const std::filesystem::path& folder) {
  Candidates found;
  for (const ListedCheckpoint& checkpoint : list_checkpoints(folder, &found.unreadable))
    found.names.push_back(checkpoint.path.filename().string());
  std::reverse(found.names.begin(), found.names.end());
  return found;
}

/// One rank lists: what a shared file system shows may differ from rank to rank.
std::vector<std::string> agree_on(Backend& backend, Communicator& world,
                                  const std::vector<std::string>& names) {
  const std::string text = fmt::format("{}", fmt::join(names, "\n"));
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  broadcast_from(backend, world, 0, bytes);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::vector<std::string> agreed;
  for (std::string name; std::getline(lines, name);) agreed.push_back(name);
  return agreed;
}

/// The checkpoint once every rank has compared its share of the files and opened it; what is wrong with it where one could
/// not, the same words on every rank. Nobody opens a file before all files are known to be intact.
std::optional<CheckpointReader> open_intact(Backend& backend, const ProcessGrid& grid,
                                            const std::filesystem::path& folder, std::string& problem) {
  Communicator& world = grid.world();
  const auto attempt = [&](const auto& work) {
    std::string own;
    try {
      own = work();
    } catch (const Error& error) {
      own = error.what();
    }
    problem = first_text(backend, world, own);
    return problem.empty();
  };
  const auto compare = [&] { return find_damage(folder, read_manifest(folder), world.rank(), world.size()); };
  if (!attempt(compare)) return std::nullopt;
  std::optional<CheckpointReader> checkpoint;
  const auto open = [&] {
    checkpoint.emplace(folder, Verify::no);
    return std::string();
  };
  if (!attempt(open)) return std::nullopt;
  return checkpoint;
}

/// The newest intact checkpoint; says which ones were passed over. None where there never was one; throws Error where there
/// are some and all are damaged.
std::optional<CheckpointReader> open_newest_intact(Backend& backend, const ProcessGrid& grid,
                                                   const std::filesystem::path& folder) {
  const bool root = grid.world().rank() == 0;
  Candidates found;
  if (root) found = list_candidates(folder);
  const auto wait = grid.world().expect_long_wait("comparing a checkpoint with its manifest");
  std::string first_problem =
      first_text(backend, grid.world(), found.unreadable.empty() ? "" : found.unreadable.back());
  for (const std::string& problem : found.unreadable) log::warn("passed over: {}", problem);
  for (const std::string& name : agree_on(backend, grid.world(), found.names)) {
    std::string problem;
    auto checkpoint = open_intact(backend, grid, folder / name, problem);
    if (checkpoint) {
      if (root && !first_problem.empty()) log::warn("falling back to {}", checkpoint->folder().string());
      return checkpoint;
    }
    if (root) log::warn("passed over: {}", problem);
    if (first_problem.empty()) first_problem = problem;
  }
  if (first_problem.empty()) return std::nullopt;
  throw Error(fmt::format("--resume: no checkpoint in {} is intact: {}; --force starts the run again",
                          folder.string(), first_problem));
}

/// `path`: a converted model, which has no optimizer state, or another checkpoint named as a run's folder.
[[noreturn]] void refuse_converted(const std::filesystem::path& path) {
  throw UsageError(
      fmt::format("{}: a model and no run to resume; start a run from it with --init {} and another run.dir",
                  path.string(), path.string()));
}

}  // namespace

std::optional<CheckpointReader> open_newest_checkpoint(Backend& backend, const ProcessGrid& grid,
                                                       const RunFolder& folder, const Config& config,
                                                       const ShardSet& train) {
  const bool root = grid.world().rank() == 0;
  if (root && std::filesystem::exists(folder.path() / "manifest.json")) refuse_converted(folder.path());
  auto newest = open_newest_intact(backend, grid, folder.checkpoints());
  if (!newest) return std::nullopt;
  const CheckpointReader& checkpoint = *newest;
  if (checkpoint.train_tokens() == 0) refuse_converted(checkpoint.folder());
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
    const bool learns = config.head.map_is_learned(), learned = checkpoint.config().head.map_is_learned();
    log::warn("head.map = {}: the run goes on with the map that its checkpoint holds{}", config.head.map,
              learns == learned ? ""
              : learns          ? ", re-fit from now on"
                                : ", no more re-fit");
  }
  return newest;
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
