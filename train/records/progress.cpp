#include "train/records/progress.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstdio>

#include "core/log.h"
#include "train/records/metrics.h"

namespace vqlm {

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

Progress::Progress(std::int64_t steps, std::int64_t log_every, Terminal terminal)
    : steps_(steps), log_every_(log_every), terminal_(terminal) {}

Progress::~Progress() {
  if (drawn_) std::fputc('\n', stderr);
}

std::string Progress::line(const StepMetrics& step) const {
  return fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  {:.0f} tokens/s  MFU {:.1f} %  {} left", step.step, steps_,
                     step.loss, step.lr, step.tokens_per_second, 100 * step.mfu,
                     duration_text(seconds_per_step_ * static_cast<double>(steps_ - step.step)));
}

void Progress::add(const StepMetrics& step) {
  // Weights of 1/16: long enough to be steady, short enough to follow a change of speed.
  seconds_per_step_ += (step.seconds - seconds_per_step_) * (seconds_per_step_ == 0 ? 1.0 : 1.0 / 16);
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
