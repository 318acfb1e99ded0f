// What a run says of itself: when it starts, when a checkpoint is saved, when a step is slow.
#include "core/log.h"
#include "train/config/role_ratios.h"
#include "train/engine/stopwatch.h"
#include "train/run/trainer.h"

namespace vqlm {

void Trainer::report_start() {
  const HeadCost head = engine_.model().head_cost();
  const double dense = static_cast<double>(config_.model.vocab_size * config_.model.d_model);
  log::info("model: {:.2f} M parameters, of them {:.2f} M in the head's matrices ({:.2f} % of V x d), {} biases",
            static_cast<double>(engine_.parameters().global_count()) / 1e6,
            static_cast<double>(head.matrix_parameters) / 1e6,
            100.0 * static_cast<double>(head.matrix_parameters) / dense, head.bias_parameters);
  log::info(
      "grid: {} data x {} tensor ranks, {} micro-batches of {} x {} tokens a step, products peak at {:.0f} "
      "GFLOP/s",
      grid_.data_size(), grid_.tensor_size(), loader_->micro_batches_per_step(), config_.train.micro_batch,
      config_.data.seq_len, matmul_peak_ / 1e9);
  const Backend::MemoryAccount memory = backend_.memory();
  const auto mib = [&](MemoryUse use) {
    return static_cast<double>(memory.in_use[static_cast<std::size_t>(use)]) / (1 << 20);
  };
  log::info(
      "memory of this rank: {:.1f} MiB = parameters {:.1f} + gradients {:.1f} + optimizer {:.1f} + activations {:.1f} "
      "+ workspace {:.1f}",
      mib(MemoryUse::parameters) + mib(MemoryUse::gradients) + mib(MemoryUse::optimizer) + mib(MemoryUse::activations) +
          mib(MemoryUse::workspace),
      mib(MemoryUse::parameters), mib(MemoryUse::gradients), mib(MemoryUse::optimizer), mib(MemoryUse::activations),
      mib(MemoryUse::workspace));
  log::info("optimizer: {}", rates_text(config_.optim, config_.model));
  if (state_.step > 0) log::info("continuing after step {} ({} tokens)", state_.step, state_.tokens);
}

void Trainer::note_slow_step(const StepMetrics& step) {
  constexpr std::size_t remembered = 50;
  constexpr double slow = 10, seconds_to_tell = 1;
  if (grid_.world().rank() > 0) return;
  if (recent_seconds_.size() >= remembered / 5) {
    const double usual = median({recent_seconds_.begin(), recent_seconds_.end()});
    if (step.seconds > slow * usual && step.seconds > seconds_to_tell) {
      log::warn("step {}: took {:.1f} s, {:.0f} times the median of the {} before", step.step, step.seconds,
                step.seconds / usual, recent_seconds_.size());
    }
  }
  recent_seconds_.push_back(step.seconds);
  if (recent_seconds_.size() > remembered) recent_seconds_.pop_front();
}

void Trainer::report_saved(Metrics* metrics) {
  const auto saved = saver_.take_saved();
  if (!saved) return;
  newest_checkpoint_ = saved->path;
  log::info("checkpoint: {} (copy {:.2f} s, written in {:.2f} s in the background)", saved->path.string(),
            saved->copy_seconds, saved->write_seconds);
  if (metrics != nullptr) {
    metrics->add(CheckpointMetrics{.step = saved->step,
                                   .name = saved->path.filename().string(),
                                   .wait_seconds = saved->wait_seconds,
                                   .copy_seconds = saved->copy_seconds,
                                   .write_seconds = saved->write_seconds});
  }
}

}  // namespace vqlm
