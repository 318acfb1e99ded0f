#include "train/run/resume.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/host_collectives.h"
#include "core/log.h"
#include "train/checkpoint/checkpoint_verify.h"
#include "train/codes/map_maker.h"
#include "train/config/model_text.h"
#include "train/config/role_ratios.h"
#include "train/config/same_model.h"
#include "train/config/schedule.h"
#include "train/models/changed_head.h"
#include "train/models/loaded_model.h"

namespace vqlm {
namespace {

/// `lost`: what would be wrong with going on, where the key does not say it.
void check_same(const Config& config, const CheckpointReader& checkpoint, Compared compared,
                std::string_view lost = "") {
  const auto difference = first_difference(config, checkpoint.config(), compared);
  if (!difference) return;
  throw UsageError(fmt::format("{} = {}, but the checkpoint {} has {}: {}set it back, or start another run",
                               difference->key, difference->now, checkpoint.path().string(), difference->saved, lost));
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
std::vector<std::string> agree_on(Backend& backend, Communicator& world, const std::vector<std::string>& names) {
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
    bool is_usage = false;
    try {
      own = work();
    } catch (const UsageError& error) {  // not damage: the configuration that it holds cannot be used any more
      own = error.what();
      is_usage = true;
    } catch (const Error& error) {
      own = error.what();
    }
    problem = first_text(backend, world, own);
    if (max_over(backend, world, is_usage ? 1 : 0) > 0) throw UsageError(problem);
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
      if (root && !first_problem.empty()) log::warn("falling back to {}", checkpoint->path().string());
      return checkpoint;
    }
    if (root) log::warn("passed over: {}", problem);
    if (first_problem.empty()) first_problem = problem;
  }
  if (first_problem.empty()) return std::nullopt;
  throw Error(
      fmt::format("no checkpoint in {} is intact: {}; --force starts the run again", folder.string(), first_problem));
}

/// Keys of the schedule may change between the parts of a run, train.steps above all; the rate then may jump.
void tell_jump_of_rate(const Config& config, const CheckpointReader& checkpoint) {
  const Config before = checkpoint.config();
  const std::int64_t step = checkpoint.state().step;
  if (step >= config.train.steps) return;
  const float planned = learning_rate(before.optim, before.train.steps, step + 1);
  const float rate = learning_rate(config.optim, config.train.steps, step + 1);
  constexpr float noticeable = 0.05f;
  const auto jumps = [&](float from, float to) { return std::abs(to - from) > noticeable * from; };
  for (const ParameterRole role : parameter_roles) {
    const float was = ratios_of(before.optim, role).lr_ratio, is = ratios_of(config.optim, role).lr_ratio;
    if (jumps(was, is))
      log::warn("the learning rate of {} is {} times the schedule's, and was {} times", name_of(role), is, was);
  }
  if (!jumps(planned, rate)) return;
  log::warn(
      "the learning rate goes from {:.2e} at step {} to {:.2e} at step {}: the schedule is another (train.steps = {}, "
      "was {}); constant and wsd schedules can be made longer without a jump before they decay",
      learning_rate(before.optim, before.train.steps, step), step, rate, step + 1, config.train.steps,
      before.train.steps);
}

/// `path`: a converted model, which has no optimizer state, or another checkpoint named as a run's folder.
[[noreturn]] void refuse_converted(const std::filesystem::path& path) {
  throw UsageError(
      fmt::format("{}: a model and no run to resume; start a run from it with --init {} and another run.dir",
                  path.string(), path.string()));
}

}  // namespace

void check_training_shards(const CheckpointReader& checkpoint, const ShardSet& train) {
  for (const TrainedSource& before : checkpoint.sources()) {
    const auto part = std::ranges::find(train.parts(), before.name,
                                        [](const ShardSet::Part& candidate) { return candidate.source.name; });
    if (part == train.parts().end()) {
      throw Error(fmt::format(
          "{}: the run was trained on the source {} ({} tokens), which is not named: name it in [[data.mix]], with "
          "weight = 0 to leave it out from now on, or start another run.dir",
          checkpoint.path().string(), before.name, before.tokens));
    }
    std::string difference;
    if (static_cast<std::int64_t>(part->tokens) != before.tokens) {
      difference = fmt::format("{} tokens, but the run was trained on {}", part->tokens, before.tokens);
    } else if (!before.shards.empty() &&
               before.shards != train.part(static_cast<std::size_t>(part - train.parts().begin())).fingerprint()) {
      difference = fmt::format("{} tokens as before, but of other text, or in another order of shards", part->tokens);
    }
    if (difference.empty()) continue;
    throw Error(
        fmt::format("{}: {}; its order of samples exists for those shards only: name them again, or start another "
                    "run.dir",
                    part->source.glob, difference));
  }
}

namespace {

[[noreturn]] void refuse_other_head(const Config& config, const CheckpointReader& checkpoint) {
  throw UsageError(
      fmt::format("the head is {}, but the checkpoint {} has {}: set it back, or go on with another head in another "
                  "run.dir by --resume-from {}",
                  head_text(config.model, config.head), checkpoint.path().string(),
                  head_text(checkpoint.model(), checkpoint.head()), checkpoint.path().string()));
}

/// Throws UsageError or Error where no run of this configuration can go on from it.
void check_continued(const CheckpointReader& checkpoint, const Config& config, const ShardSet& train, bool root,
                     bool may_change_head) {
  if (checkpoint.sources().empty()) refuse_converted(checkpoint.path());
  const VqHeadConfig* const saved = vq_of(checkpoint.head());
  if (saved != nullptr && saved->map == learned_map && kind_of(config.head) == HeadKind::vq) {
    throw Error(
        fmt::format("{}: the map of this run was re-fitted while it trained, which vqlm does not do any more: "
                    "evaluate, generate and convert it as ever, or start a new run from it by --init {} with "
                    "head.map = \"corpus\"",
                    checkpoint.path().string(), checkpoint.path().string()));
  }
  check_tokenizer(checkpoint, train);  // first: model.vocab_size is the shards'
  if (changes_head(config, checkpoint.config())) {
    if (!may_change_head) refuse_other_head(config, checkpoint);
    check_head_change(config, checkpoint);
    Config body = config;
    body.head = checkpoint.head();
    body.model.tie_embeddings = checkpoint.model().tie_embeddings;
    check_same(body, checkpoint, Compared::model);
    check_same(body, checkpoint, Compared::averages);
  } else {
    check_same(config, checkpoint, Compared::model);
    check_same(config, checkpoint, Compared::averages);
  }
  check_same(config, checkpoint, Compared::samples, "samples would be lost or repeated; ");
  check_training_shards(checkpoint, train);
  if (root) tell_jump_of_rate(config, checkpoint);
  const VqHeadConfig* const head = vq_of(config.head);
  if (root && head != nullptr && saved != nullptr && head->map != saved->map) {
    log::warn("head.map = {}: the run goes on with the map that its checkpoint holds", head->map);
  }
}

}  // namespace

std::optional<CheckpointReader> open_newest_checkpoint(Backend& backend, const ProcessGrid& grid,
                                                       const RunFolder& folder, const Config& config,
                                                       const ShardSet& train) {
  const bool root = grid.world().rank() == 0;
  if (root && std::filesystem::exists(folder.path() / "manifest.json")) refuse_converted(folder.path());
  auto newest = open_newest_intact(backend, grid, folder.checkpoints());
  if (newest) check_continued(*newest, config, train, root, false);
  return newest;
}

CheckpointReader open_checkpoint_to_fork(Backend& backend, const ProcessGrid& grid, const std::filesystem::path& path,
                                         const Config& config, const ShardSet& train) {
  const bool root = grid.world().rank() == 0;
  // One rank looks, as what a shared file system shows may differ from rank to rank.
  const bool named =
      max_over(backend, grid.world(), root && std::filesystem::exists(path / "manifest.json") ? 1 : 0) > 0;
  std::string problem;
  auto checkpoint =
      named ? open_intact(backend, grid, path, problem) : open_newest_intact(backend, grid, path / "checkpoints");
  if (!checkpoint) {
    if (problem.empty()) problem = path.string() + ": neither a checkpoint nor a run that has one";
    throw Error(fmt::format("--resume-from: {}; name another checkpoint{}", problem, describe_runs_near(path)));
  }
  check_continued(*checkpoint, config, train, root, true);
  return std::move(*checkpoint);
}

}  // namespace vqlm
