#include "train/records/progress.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstdio>

#include "core/log.h"
#include "train/records/metrics.h"

namespace vqlm {

Progress::Progress(std::int64_t steps, std::int64_t log_every, Terminal terminal)
    : steps_(steps), log_every_(log_every), terminal_(terminal) {}

Progress::~Progress() {
  if (drawn_) std::fputc('\n', stderr);
}

std::string Progress::line(const StepMetrics& step) const {
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  return fmt::format("step {}/{}  loss {:.4f} (mean {:.4f})  lr {:.2e}  {:.0f} tokens/s  MFU {:.1f} %  {}, {} left",
                     step.step, steps_, step.loss, loss_weight_ > 0 ? loss_sum_ / loss_weight_ : step.loss, step.lr,
                     step.tokens_per_second, 100 * step.mfu, duration_text(elapsed),
                     duration_text(seconds_per_step_ * static_cast<double>(steps_ - step.step)));
}

void Progress::add(const StepMetrics& step) {
  // Weights of 1/16: long enough to be steady, short enough to follow a change of speed.
  seconds_per_step_ += (step.seconds - seconds_per_step_) * (seconds_per_step_ == 0 ? 1.0 : 1.0 / 16);
  // A step's loss jumps with its text. Without the weights' sum the start would lean to zero.
  constexpr double window = 50;
  if (std::isfinite(step.loss)) {
    loss_sum_ += (step.loss - loss_sum_) / window;
    loss_weight_ += (1 - loss_weight_) / window;
  }
  const bool last = step.step == steps_;
  if (last || step.step % log_every_ == 0) {
    // On a terminal for the run's log alone: here the line below redraws itself.
    if (terminal_ == Terminal::no) {
      log::info("{}", line(step));
    } else {
      log::debug("{}", line(step));
    }
  }
  if (terminal_ == Terminal::no) return;
  const auto now = std::chrono::steady_clock::now();
  if (!last && now - last_drawn_ < std::chrono::milliseconds(100)) return;
  last_drawn_ = now;
  drawn_ = true;
  const std::string text = line(step);
  std::fprintf(stderr, "\r\x1b[K%s", text.c_str());  // back to the left margin, clear to its end
  std::fflush(stderr);
}

}  // namespace vqlm
