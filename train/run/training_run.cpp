#include "train/run/training_run.h"

#include <utility>

#include "core/log.h"
#include "train/codes/code_map_file.h"
#include "train/models/initial_model.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/run/mixture.h"
#include "train/run/resume.h"

namespace vqlm {
namespace {

/// A run that starts from a model has that model's map: "learned" was one that earlier versions re-fitted in training, which
/// this run does not.
Config settled(Config config, const TrainingRunOptions& options) {
  auto* head = std::get_if<VqHeadConfig>(&config.head);
  if (head != nullptr && !options.initial.empty() && head->map == "learned") head->map = "corpus";
  return config;
}

}  // namespace

TrainingRun::TrainingRun(Backend& backend, const ProcessGrid& grid, const Config& config, ShardSet shards,
                         const TrainingRunOptions& options)
    : backend_(backend), grid_(grid), config_(settled(config, options)), options_(options), folder_(config_) {
  open_folder();
  open_beginning(shards);
  std::optional<CodeMap> map;
  if (resumed_) map = resumed_->code_map();
  if (initial_) map = initial_->code_map();
  inputs_.emplace(make_training_inputs(backend_, grid_, config_, std::move(shards), std::move(map)));
  if (options_.before_allocation) options_.before_allocation(*inputs_);
  trainer_.emplace(backend_, grid_, config_, *inputs_, resumed_ ? &*resumed_ : nullptr, initial_.get());
  resumed_.reset();  // their files and memory
  initial_.reset();
}

void TrainingRun::open_folder() {
  if (grid_.world().rank() == 0) {
    folder_.make();
    if (!options_.job.empty()) lock_.emplace(folder_.path(), options_.job);
    folder_.open(options_.existing);
  }
  grid_.world().barrier();
}

void TrainingRun::open_beginning(const ShardSet& shards) {
  if (options_.existing == ExistingRun::resume) {
    resumed_ = open_newest_checkpoint(backend_, grid_, folder_, config_, shards);
    if (!resumed_) {
      log::info("{}: no checkpoint to resume from; starting at step 0", folder_.path().string());
    } else {
      std::vector<std::string> told;
      config_ = continued_mixture(config_, resumed_->config(), resumed_->state(), told);
      if (grid_.world().rank() > 0) told.clear();
      for (const std::string& line : told) log::info("{}", line);
    }
  }
  if (options_.initial.empty()) return;
  initial_ = open_model(options_.initial, grid_.world().rank() == 0 ? Verify::yes : Verify::no);
  check_initial_model(config_, *initial_);
  check_tokenizer(*initial_, shards);
  initial_ = on_named_map(std::move(initial_), config_, backend_, grid_.world());
  log::info("parameters of {} ({})", initial_->path().string(), initial_->description());
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
  if (options_.keeps_records && grid_.world().rank() == 0) begin_records();
  return trainer_->run(metrics_ ? &*metrics_ : nullptr, stop_requested, limit);
}

}  // namespace vqlm
