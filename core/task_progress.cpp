#include "core/task_progress.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "core/log.h"

namespace vqlm {
namespace {

using std::chrono::milliseconds;

// A terminal's line may move; of log lines one in a while is enough to see that nothing hangs.
constexpr TaskProgress::Pace on_terminals = {milliseconds(1000), milliseconds(500)};
constexpr TaskProgress::Pace in_logs = {milliseconds(15'000), milliseconds(60'000)};

}  // namespace

bool stderr_is_terminal() {
  const char* said = std::getenv("VQLM_TERMINAL");
  return ::isatty(STDERR_FILENO) == 1 || (said != nullptr && std::string_view(said) == "1");
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

TaskProgress::TaskProgress(std::string what, Speaks speaks)
    : TaskProgress(std::move(what), speaks, stderr_is_terminal(), stderr_is_terminal() ? on_terminals : in_logs) {}

TaskProgress::TaskProgress(std::string what, Speaks speaks, bool terminal, Pace pace)
    : what_(std::move(what)), terminal_(terminal), pace_(pace) {
  if (speaks == Speaks::yes) thread_ = std::thread([this] { speak(); });
}

TaskProgress::~TaskProgress() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

void TaskProgress::set(std::int64_t done, std::int64_t total) {
  total_ = total;
  done_ = done;
}

std::string TaskProgress::line() const {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const auto done = static_cast<double>(done_), total = static_cast<double>(total_);
  if (done <= 0 || total <= 0) return fmt::format("{}: {}", what_, duration_text(seconds));
  return fmt::format("{}: {:.0f} %, {}, about {} left", what_, 100 * done / total, duration_text(seconds),
                     duration_text(seconds * (total - done) / done));
}

void TaskProgress::speak() {
  bool drawn = false;
  std::unique_lock lock(mutex_);
  for (milliseconds wait = pace_.first; !ended_.wait_for(lock, wait, [this] { return end_; }); wait = pace_.every) {
    if (terminal_) {
      std::fprintf(stderr, "\r\x1b[K%s", line().c_str());
      std::fflush(stderr);
      drawn = true;
    } else {
      log::info("{}", line());
    }
  }
  if (drawn) std::fputs("\r\x1b[K", stderr);
}

}  // namespace vqlm
