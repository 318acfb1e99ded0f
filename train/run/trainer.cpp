#include "train/run/trainer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/host_collectives.h"
#include "core/log.h"
#include "train/config/schedule.h"
#include "train/engine/matmul_peak.h"
#include "train/engine/step_statistics.h"
#include "train/engine/stopwatch.h"
#include "train/run/mixture.h"

namespace vqlm {
namespace {

LoaderOptions loader_options(const Config& config, const ProcessGrid& grid, const TrainState& state) {
  LoaderOptions options;
  options.seq_len = config.data.seq_len;
  options.micro_batch = config.train.micro_batch;
  options.global_batch = config.train.global_batch;
  options.data_rank = grid.data_rank();
  options.data_size = grid.data_size();
  options.first_sample = static_cast<std::uint64_t>(state.samples);
  return options;
}

RankTimes rank_times(const std::vector<double>& seconds) {
  const auto [least, most] = std::ranges::minmax_element(seconds);
  return {*least, *most, static_cast<int>(most - seconds.begin())};
}

/// Quickly on the host, where steps that are faster make it be measured again.
double peak_at_start(Backend& backend, Communicator& world) {
  return measure_matmul_peak(backend, world, backend.host_accessible() ? 0.2 : 0.5).flops_per_second;
}

}  // namespace

Trainer::Trainer(Backend& backend, const ProcessGrid& grid, const Config& config, const TrainingInputs& inputs,
                 const CheckpointReader* resumed, const ModelSource* initial, double matmul_peak)
    : backend_(backend),
      grid_(grid),
      config_(config),
      inputs_(inputs),
      matmul_peak_(matmul_peak > 0 ? matmul_peak : peak_at_start(backend, grid.world())),
      engine_(backend, grid, config, map()),
      replica_check_(backend, grid, engine_.parameters()),
      folder_(config),
      saver_({.backend = backend,
              .parameters = engine_.parameters(),
              .optimizer = engine_.optimizer(),
              .config = config,
              .map = map(),
              .tokenizer = inputs.tokenizer,
              .tokenizer_sha256 = inputs.train.tokenizer_sha256(),
              .sources = grid.world().rank() == 0 ? trained_sources(inputs.train) : std::vector<TrainedSource>{}},
             grid, folder_.checkpoints()) {
  if (resumed == nullptr && initial != nullptr) {
    load_parameters(*initial, engine_.parameters());
    model().head().start_averages(inputs.counts);
  } else if (resumed == nullptr) {
    model().initialize(static_cast<std::uint64_t>(config.train.seed), inputs.counts);
  } else {
    using HeadMoments = CheckpointReader::HeadMoments;
    load_parameters(initial != nullptr ? *initial : *resumed, engine_.parameters());
    resumed->load_training_state(backend, engine_.parameters(), engine_.optimizer(),
                                 initial != nullptr ? HeadMoments::none : HeadMoments::saved);
    state_ = resumed->state();
    saved_step_ = state_.step;
    newest_checkpoint_ = resumed->path();
  }
  const SampleOrder order = sample_order(config, inputs.train, state_);
  loader_ = std::make_unique<BatchLoader>(inputs.train, order, loader_options(config, grid, state_));
  losses_.emplace(backend, grid, config, inputs.train, order);
  for (const HeldoutSet& set : inputs.heldout) evaluators_.push_back({set.name, engine_.evaluator(set.shards)});
  products_.emplace(backend, grid.world(), config.run.products_file);  // which the peak above has nothing to do with
}

TrainOutcome Trainer::run(Metrics* metrics, const std::function<bool()>& stop_requested, const TimeLimit& limit) {
  report_start();
  make_up_evaluation(metrics);
  Wishes wishes;
  bool newly_begun = true;
  while (state_.step < config_.train.steps && !wishes.stop && !wishes.time_is_up) {
    const StepMetrics step = train_step(stop_requested, limit, wishes);
    if (metrics != nullptr) metrics->add(step);
    report_saved(metrics);
    check_saves();
    if (newly_begun) products_->report();
    newly_begun = false;
    note_slow_step(step);
    note_skipped_update(step, metrics);
    const bool last = state_.step == config_.train.steps;
    const bool leaves = wishes.stop || wishes.time_is_up;
    if (last && config_.train.check_replicas_every > 0) {  // what the last update made, before it is saved
      saver_.finish();
      engine_.gather_parameters();
      replica_check_.run(state_.step);
    }
    // Not where the run is left: who asked for the end may not wait long, and the run makes it up where it goes on.
    if (!leaves && evaluation_is_due()) evaluate(metrics);
    if (leaves || last) {
      save_and_wait(metrics);
      if (leaves && last && evaluation_is_due()) evaluate(metrics);  // a finished run does not go on
    } else if (is_due(config_.checkpoint.every, state_.step)) {
      save();
      check_saves();  // of the one before, which it waited for
    }
  }
  products_->report();
  engine_.gather_parameters();  // for whoever reads the model now
  if (state_.step >= config_.train.steps) return TrainOutcome::finished;
  return wishes.stop ? TrainOutcome::stopped : TrainOutcome::out_of_time;
}

StepMetrics Trainer::advance_to(std::int64_t step) {
  VQLM_ASSERT(step > state_.step);
  StepMetrics last;
  Wishes nobodys;
  while (state_.step < step) last = train_step([] { return false; }, {}, nobodys);
  return last;
}

bool Trainer::time_is_up(const TimeLimit& limit) const {
  const bool evaluates = !evaluators_.empty() && is_due(config_.train.eval_every, state_.step + 1);
  // Twice what was measured: steps vary, and the save in flight may be waited for before the last one. A second for the rest.
  const double needed =
      2 * longest_step_seconds_ + 2 * saver_.expected_seconds() + (evaluates ? evaluation_seconds_ : 0.0) + 1;
  return limit.seconds_left() < needed;
}

StepMetrics Trainer::train_step(const std::function<bool()>& stop_requested, const TimeLimit& limit, Wishes& wishes) {
  double begin = wall_seconds();
  const std::int64_t step = state_.step + 1;
  grid_.world().begin_step(step);
  const float lr = learning_rate(config_.optim, config_.train.steps, step);
  const double seconds_data = load_micro_batches();
  engine_.micro_batches().enqueue();
  begin += check_replicas(step);
  const double norm = engine_.update(step, lr);
  const StepSums sums = engine_.micro_batches().sums();
  step_.step = step;
  step_.nll = engine_.micro_batches().sequence_nll(grid_.tensor_rank() * model().local_rows());

  // One small reduction carries every statistic of the step, the commitment loss, the wishes to end the run and how far a
  // save in the background is among them. The clock is one rank's: ranks that disagree would wait for each other.
  longest_step_seconds_ = std::max(wall_seconds() - begin, 0.9 * longest_step_seconds_);
  const bool clock_says_so = grid_.world().rank() == 0 && time_is_up(limit);
  StepStatistics all{.nll = sums.nll,
                     .penalty = sums.penalty,
                     .seconds_data = seconds_data,
                     .seconds_head = sums.seconds_head,
                     .wish_to_stop = stop_requested() ? 1.0 : 0.0,
                     .time_is_up = clock_says_so ? 1.0 : 0.0,
                     .saved = saver_.progress(),
                     .peak_is_low = peak_is_low_ ? 1.0 : 0.0,
                     .by_source = losses_->by_source(step_)};
  for (const FutureSum& head : sums.future) {
    all.future_nll.push_back(head.nll);
    all.future_tokens.push_back(head.tokens);
  }
  all.sum_over_ranks(backend_, grid_.world());
  const double ranks = grid_.world().size();
  const std::int64_t tokens = config_.train.global_batch * config_.data.seq_len;
  state_.step = step;
  state_.tokens += tokens;
  state_.samples = static_cast<std::int64_t>(loader_->samples_consumed());
  wishes = {.stop = all.wish_to_stop > 0, .time_is_up = all.time_is_up > 0};
  saver_.advance(all.saved);

  StepMetrics metrics;
  metrics.step = step;
  metrics.tokens = state_.tokens;
  metrics.loss = all.nll / static_cast<double>(tokens);
  metrics.lr = static_cast<double>(lr);
  metrics.grad_norm = norm;
  const VqHeadConfig* const vq = vq_of(config_.head);
  if (vq != nullptr && !std::holds_alternative<GradientLearningConfig>(vq->learning)) {
    metrics.commitment = all.penalty / static_cast<double>(tokens);
  }
  if (z_loss_of(config_.head) > 0) metrics.z_loss = all.penalty / static_cast<double>(tokens);
  for (std::size_t j = 0; j < all.future_nll.size(); ++j)
    metrics.future_losses.push_back(all.future_nll[j] / all.future_tokens[j]);
  metrics.seconds = wall_seconds() - begin;
  metrics.tokens_per_second = static_cast<double>(tokens) / metrics.seconds;
  metrics.seconds_data = all.seconds_data / ranks;
  metrics.seconds_head = all.seconds_head / ranks;
  if (ranks > 1) {
    metrics.data_times = rank_times(all.data_by_rank);
    metrics.head_times = rank_times(all.head_by_rank);
  }
  metrics.skipped = !std::isfinite(norm);
  metrics.sources = losses_->metrics(step_, all.by_source);
  metrics.memory_bytes = backend_.memory().peak_total;
  metrics.mfu = share_of_peak(metrics.tokens_per_second * model().flops_per_token());
  losses_->watch(metrics.loss, step_);
  if (all.peak_is_low > 0) measure_peak_again();  // between steps
  return metrics;
}

double Trainer::check_replicas(std::int64_t step) {
  if (!is_due(config_.train.check_replicas_every, step)) return 0;
  // The step's own work, and the wait for the slowest rank, are no part of the check's time.
  backend_.synchronize();
  grid_.world().barrier();
  const double begin = wall_seconds();
  saver_.finish();  // where the check ends the run, the save of an earlier step is not lost
  replica_check_.run(step);
  return wall_seconds() - begin;
}

double Trainer::share_of_peak(double flops_per_second) {
  peak_is_low_ = flops_per_second > matmul_peak_;
  matmul_peak_ = std::max(matmul_peak_, flops_per_second);
  return flops_per_second / matmul_peak_;
}

void Trainer::measure_peak_again() {
  // A device's memory may be full of the model by now; there the step's own rate is the peak that is known.
  if (!backend_.host_accessible()) return;
  matmul_peak_ = std::max(matmul_peak_, measure_matmul_peak(backend_, grid_.world(), 0.1).flops_per_second);
}

double Trainer::load_micro_batches() {
  const double waited = loader_->seconds_waiting();
  step_samples_.clear();
  step_.sources.clear();
  step_.first = static_cast<std::uint64_t>(state_.samples);
  for (std::int64_t number = 0; number < loader_->micro_batches_per_step(); ++number) {
    const Batch batch = loader_->next();
    engine_.micro_batches().set(number, batch);
    step_samples_.insert(step_samples_.end(), batch.samples.begin(), batch.samples.end());
    step_.sources.insert(step_.sources.end(), batch.sources.begin(), batch.sources.end());
  }
  return loader_->seconds_waiting() - waited;
}

void Trainer::note_skipped_update(const StepMetrics& step, Metrics* metrics) {
  if (!step.skipped) {
    skipped_in_a_row_ = 0;
    return;
  }
  ++skipped_in_a_row_;
  ++skipped_;
  const std::string what =
      fmt::format("step {}: the loss is {} and the gradient norm {}", step.step, step.loss, step.grad_norm);
  if (skipped_in_a_row_ <= config_.train.max_skipped_steps) {
    log::warn("{}; the update was skipped ({} in a row, {} in all)", what, skipped_in_a_row_, skipped_);
    return;
  }
  save_and_wait(metrics);
  throw Error(fmt::format(
      "{}, and {} updates in a row were skipped for it (train.max_skipped_steps = {}); the parameters of the last good "
      "step are saved: lower optim.lr (= {}) or raise optim.warmup_steps, and continue with --resume",
      what, skipped_in_a_row_, config_.train.max_skipped_steps, config_.optim.lr));
}

void Trainer::make_room() {
  remove_unfinished(folder_.checkpoints());
  if (newest_checkpoint_.parent_path() != folder_.checkpoints()) return;
  remove_old(folder_.checkpoints(), {config_.checkpoint.keep, config_.checkpoint.keep_every}, state_.step);
}

void Trainer::check_saves() {
  const int most = config_.checkpoint.max_failed_saves;
  if (most == 0 || saver_.failures_in_a_row() < most) return;
  throw Error(fmt::format(
      "{} saves in a row have failed (checkpoint.max_failed_saves = {}), the last one for: {}; {}: make room, and continue with "
      "--resume",
      saver_.failures_in_a_row(), most, saver_.failure(),
      newest_checkpoint_.empty() ? "this run has no checkpoint yet" : "the newest is " + newest_checkpoint_.string()));
}

void Trainer::save() {
  if (saved_step_ == state_.step) return;
  saver_.begin(state_);
  saved_step_ = state_.step;
}

void Trainer::save_and_wait(Metrics* metrics) {
  save();
  report_saved(metrics);  // of the one before, which save() has waited for
  saver_.finish();
  report_saved(metrics);
  if (saver_.failure().empty()) return;
  throw Error(fmt::format(
      "the checkpoint of step {} was not saved: {}; {}: make room, and continue with --resume", state_.step,
      saver_.failure(),
      newest_checkpoint_.empty() ? "this run has none yet" : "the newest is " + newest_checkpoint_.string()));
}

}  // namespace vqlm
