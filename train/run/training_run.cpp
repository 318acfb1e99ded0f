#include "train/run/training_run.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/host_collectives.h"
#include "core/log.h"
#include "dist/launcher.h"
#include "train/codes/code_map_file.h"
#include "train/config/enum_words.h"
#include "train/config/model_text.h"
#include "train/models/changed_head.h"
#include "train/models/initial_model.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/run/mixture.h"
#include "train/run/resume.h"
#include "train/run/shared_folder.h"
#include "train/run/token_counts.h"

namespace vqlm {
namespace {

/// A run that starts from a model has that model's map: "learned" was one that earlier versions re-fitted in training, which
/// this run does not.
Config settled(Config config, const TrainingRunOptions& options) {
  auto* head = std::get_if<VqHeadConfig>(&config.head);
  if (head != nullptr && !options.initial.empty() && head->map == "learned") head->map = "corpus";
  return config;
}

[[noreturn]] void refuse_to_start(const RunFolder& folder) {
  throw UsageError(fmt::format(
      "--resume: run.dir = {}: {}; --resume=auto starts a run where there is none to continue{}",
      folder.path().string(), std::filesystem::exists(folder.path()) ? "has no checkpoint" : "there is no such folder",
      describe_runs_near(folder.path())));
}

/// A fork into the folder that it comes from would remove or mix what is there.
void check_fork(const RunFolder& folder, const std::filesystem::path& source) {
  const auto own = std::filesystem::weakly_canonical(folder.path());
  const auto from = std::filesystem::weakly_canonical(source);
  if (std::mismatch(own.begin(), own.end(), from.begin(), from.end()).first != own.end()) return;
  throw UsageError(
      fmt::format("--resume-from {}: lies in run.dir = {}, the run itself: choose another run.dir; --resume "
                  "continues the run",
                  source.string(), folder.path().string()));
}

/// A run that began from a model or another run's checkpoint, and has none of its own yet, must not go on from random
/// parameters as if it had.
void check_not_begun_elsewhere(const RunFolder& folder) {
  const std::filesystem::path config = folder.path() / "config.toml";
  if (!std::filesystem::exists(config)) return;
  const std::string from = load_saved_config(config).run.began_from;
  if (from.empty()) return;
  throw UsageError(
      fmt::format("--resume=auto: run.dir = {}: began from {} and has no checkpoint yet: start it again by --init or "
                  "--resume-from, as it was, with --force",
                  folder.path().string(), from));
}

}  // namespace

TrainingRun::TrainingRun(Backend& backend, const ProcessGrid& grid, const Config& config, ShardSet shards,
                         const TrainingRunOptions& options)
    : backend_(backend), grid_(grid), config_(settled(config, options)), options_(options), folder_(config_) {
  open_folder();
  open_beginning(shards);
  std::optional<CodeMap> map;
  const bool changes = resumed_ && changes_head(config_, resumed_->config());
  if (resumed_ && !changes) map = resumed_->code_map();
  if (initial_) map = initial_->code_map();
  settle_counted_text();
  const std::optional<TrainState> place = resumed_ ? std::optional(resumed_->state()) : std::nullopt;
  inputs_.emplace(make_training_inputs(backend_, grid_, config_, std::move(shards), std::move(map), place));
  if (options_.before_allocation) options_.before_allocation(*inputs_);
  if (changes) change_head();
  trainer_.emplace(backend_, grid_, config_, *inputs_, resumed_ ? &*resumed_ : nullptr,
                   changes ? changed_.back().get() : initial_.get(), options_.matmul_peak);
  const std::int64_t steps = trainer_->state().step;
  nothing_to_do_ = steps > config_.train.steps || (steps == config_.train.steps && !lacks_last_evaluation());
  changed_.clear();
  resumed_.reset();  // their files and memory
  initial_.reset();
}

void TrainingRun::open_folder() {
  if (grid_.world().rank() == 0) {
    // Before a mistyped folder is made.
    if (options_.existing == ExistingRun::resume && !folder_.holds_checkpoint()) refuse_to_start(folder_);
    if (!options_.forked.empty()) check_fork(folder_, options_.forked);
    folder_.make();
    if (!options_.job.empty()) lock_.emplace(folder_.path(), options_.job);
    folder_.open(options_.existing);
  }
  grid_.world().barrier();
  // Now, and not by its first checkpoint, which would be lost.
  if (options_.keeps_records) {
    const int asked = number_from_environment("VQLM_SHARED_FOLDER_SECONDS");
    require_shared_folder(backend_, grid_.world(), folder_.path(), asked > 0 ? asked : shared_folder_seconds);
  }
}

void TrainingRun::open_beginning(const ShardSet& shards) {
  config_.run.began_from = options_.initial.string();
  config_.run.head_since = 0;
  if (options_.existing == ExistingRun::resume || options_.existing == ExistingRun::resume_or_start) {
    resumed_ = open_newest_checkpoint(backend_, grid_, folder_, config_, shards);
    if (resumed_) {
      config_.run.began_from = resumed_->config().run.began_from;
      config_.run.head_since = resumed_->config().run.head_since;
      adopt_mixture();
      return;
    }
    if (options_.existing == ExistingRun::resume) refuse_to_start(folder_);  // on all ranks
    if (options_.forked.empty()) {
      if (options_.initial.empty()) check_not_begun_elsewhere(folder_);
      log::info("{}: no checkpoint to resume from; starting at step 0", folder_.path().string());
    }
  }
  if (!options_.forked.empty()) {
    open_fork(shards);
    return;
  }
  // Another run's configuration says where that one's stages began.
  for (MixEntry& entry : config_.data.mix) entry.from_sample = MixEntry::not_set;
  if (options_.initial.empty()) return;
  const auto wait = grid_.world().expect_long_wait("reading the model that the run starts from");
  initial_ = open_model(options_.initial, grid_.world().rank() == 0 ? Verify::yes : Verify::no);
  check_initial_model(config_, *initial_);
  check_tokenizer(*initial_, shards);
  initial_ = on_named_map(std::move(initial_), config_, shards, backend_, grid_.world());
  log::info("parameters of {} ({})", initial_->path().string(), initial_->description());
}

void TrainingRun::adopt_mixture() {
  std::vector<std::string> told;
  config_ = continued_mixture(config_, resumed_->config(), resumed_->state(), told);
  if (grid_.world().rank() > 0) return;
  for (const std::string& line : told) log::info("{}", line);
}

void TrainingRun::open_fork(const ShardSet& shards) {
  resumed_ = open_checkpoint_to_fork(backend_, grid_, options_.forked, config_, shards);
  config_.run.began_from = resumed_->path().string();
  config_.run.head_since =
      changes_head(config_, resumed_->config()) ? resumed_->state().step : resumed_->config().run.head_since;
  adopt_mixture();
  const std::string earlier = resumed_->config().run.began_from;
  log::info("goes on from {} (step {}, {} tokens{}), in {}", config_.run.began_from, resumed_->state().step,
            resumed_->state().tokens, earlier.empty() ? "" : ", which began from " + earlier, folder_.path().string());
}

void TrainingRun::settle_counted_text() {
  const bool goes_on = resumed_ && !changes_head(config_, resumed_->config());
  if (!goes_on) {
    const TrainState place = resumed_ ? resumed_->state() : TrainState{};
    const bool all = config_.data.counted_text == CountedText::all;
    config_.run.counted_samples = all ? 0 : planned_samples(config_, place);
    return;
  }
  const Config saved = resumed_->config();
  if (grid_.world().rank() == 0 && config_.data.counted_text != saved.data.counted_text) {
    log::info("data.counted_text = \"{}\": the run goes on from counts of \"{}\", with which it began",
              word_of(config_.data.counted_text), word_of(saved.data.counted_text));
  }
  config_.data.counted_text = saved.data.counted_text;
  config_.run.counted_samples = saved.run.counted_samples;
}

void TrainingRun::change_head() {
  changed_ = with_changed_head(*resumed_, config_, inputs_->map ? &*inputs_->map : nullptr);
  log::info("the head {} goes on as {}; the moments of its own parameters start at 0",
            head_text(resumed_->model(), resumed_->head()), head_text(config_.model, config_.head));
}

bool TrainingRun::lacks_last_evaluation() const {
  bool lacks = false;
  const bool own = options_.existing == ExistingRun::resume || options_.existing == ExistingRun::resume_or_start;
  if (own && options_.keeps_records && grid_.world().rank() == 0 && !inputs_->heldout.empty()) {
    const auto evaluated = last_evaluated_step(folder_.path() / "metrics.jsonl");
    lacks = evaluated && *evaluated < trainer_->state().step;
  }
  return max_over(backend_, grid_.world(), lacks ? 1 : 0) > 0;
}

void TrainingRun::begin_records() {
  // Only now is it certain that the new run starts, so only now may an old one go.
  if (options_.existing == ExistingRun::replace) folder_.clear();
  if (options_.on_records) options_.on_records(folder_.path());
  folder_.write_config(config_);
  if (inputs_->map) save_code_map((folder_.path() / "code_map.h5").string(), *inputs_->map);
  metrics_.emplace(config_, trainer_->state().step, options_.terminal);
}

TrainOutcome TrainingRun::train(const std::function<bool()>& stop_requested, const TimeLimit& limit) {
  {
    const auto wait = grid_.world().expect_long_wait("removing old checkpoints");
    if (grid_.world().rank() == 0) trainer_->make_room();  // before the records, which a full disk may have no room for
    if (options_.keeps_records && grid_.world().rank() == 0) begin_records();
    grid_.world().barrier();
  }
  return trainer_->run(metrics_ ? &*metrics_ : nullptr, stop_requested, limit);
}

}  // namespace vqlm
