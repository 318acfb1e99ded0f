#include "dist/watch/watchdog.h"

#include <signal.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "dist/watch/seconds.h"

namespace vqlm {
namespace {

constexpr std::size_t kept_entries = 64;
// A dump of a host that ran far ahead of its device stays readable.
constexpr std::size_t dumped_entries = 128;
// The first rank that ends the job ends it for all; until then the others, whose time is up within moments, can dump
// what they wait for.
constexpr std::chrono::milliseconds time_for_others{500};
// NCCL's error is often a peer's that failed by an error of its own, and which says so up to 2 s later (end_job in
// launch/environment.cpp): that message is the one to be seen.
constexpr std::chrono::seconds time_for_cause{4};
// NCCL's abort may itself wait for a peer; the job ends all the same.
constexpr std::chrono::seconds time_to_abort{5};

}  // namespace

// A new thread inherits the mask: no signal is ever delivered to the watchdog's, which knows nothing about them.
Watchdog::Watchdog(Options options) : options_(std::move(options)) {
  VQLM_ASSERT(options_.timeout_seconds >= 0 && options_.on_failure);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  if (::pthread_sigmask(SIG_BLOCK, &all, &before) != 0) throw Error("watchdog: pthread_sigmask failed");
  thread_ = std::thread([this] { run(); });
  if (::pthread_sigmask(SIG_SETMASK, &before, nullptr) != 0) log::error("watchdog: pthread_sigmask failed");
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(entries_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

int Watchdog::add_group(Group group) {
  const std::lock_guard lock(groups_mutex_);
  const int id = groups_made_++;
  groups_.emplace(id, std::move(group));
  return id;
}

void Watchdog::remove_group(int group) {
  const std::scoped_lock lock(groups_mutex_, entries_mutex_);
  groups_.erase(group);
  progress_.erase(group);
  std::erase_if(entries_, [group](const Entry& entry) { return entry.group == group; });
}

std::int64_t Watchdog::begin(int group, std::string_view name, DType dtype, std::int64_t count,
                             std::function<bool()> done) {
  const std::lock_guard lock(entries_mutex_);
  const State state = done ? State::queued : State::captured;
  Progress& progress = progress_[group];
  const std::int64_t sequence = ++progress.begun;
  if (state == State::captured) ++progress.captured;
  if (options_.activity) {
    const auto found = groups_.find(group);  // by the thread that adds and removes them
    options_.activity->enqueued(name, found != groups_.end() ? found->second.name : "");
  }
  const Clock::time_point now = Clock::now();
  entries_.push_back({group, sequence, name, dtype, count, state, now, now, std::move(done)});
  while (entries_.size() > kept_entries && entries_.front().state != State::queued) entries_.pop_front();
  return sequence;
}

std::shared_ptr<void> Watchdog::pause(std::string why) {
  const std::lock_guard lock(entries_mutex_);
  if (pauses_.empty()) warned_ = Clock::now();
  pauses_.push_back(std::move(why));
  const auto pause = std::prev(pauses_.end());
  const auto of_rank = options_.activity ? options_.activity->pause(*pause) : nullptr;
  return std::shared_ptr<void>(nullptr, [this, pause, of_rank](std::nullptr_t) { resume(pause); });
}

void Watchdog::resume(std::list<std::string>::iterator pause) {
  const std::lock_guard lock(entries_mutex_);
  pauses_.erase(pause);
  for (Entry& entry : entries_) entry.counted_from = Clock::now();
}

void Watchdog::throw_if_failed() const {
  if (!failed_.load(std::memory_order_acquire)) return;
  std::unique_lock lock(entries_mutex_);
  const Clock::time_point end = end_;
  lock.unlock();
  std::this_thread::sleep_until(end);  // this rank's error, too, is a consequence
  throw Error(failure_);
}

void Watchdog::run() {
  const double longest_wait = 0.25;
  const double wait =
      options_.timeout_seconds > 0 ? std::min(options_.timeout_seconds / 20, longest_wait) : longest_wait;
  std::chrono::milliseconds wait_before_end = time_for_others;
  std::unique_lock lock(entries_mutex_);
  while (!wake_.wait_for(lock, std::chrono::duration<double>(wait), [this] { return stopping_; })) {
    lock.unlock();
    std::string message;
    {
      const std::lock_guard groups_lock(groups_mutex_);
      poll_entries();
      message = find_error();
      if (!message.empty()) wait_before_end = time_for_cause;
      if (message.empty()) message = overdue_message();
    }
    if (!message.empty()) return fail(message, wait_before_end);
    lock.lock();
  }
}

/// Collectives of a group end in order, so each group's are asked oldest first until one is not done.
void Watchdog::poll_entries() {
  const std::lock_guard lock(entries_mutex_);
  std::vector<int> waiting;
  for (Entry& entry : entries_) {
    if (entry.state != State::queued || std::count(waiting.begin(), waiting.end(), entry.group) > 0) continue;
    if (entry.done()) {
      entry.state = State::done;
      progress_[entry.group].completed = entry.sequence;
      entry.done = nullptr;  // gives back what it holds
    } else {
      waiting.push_back(entry.group);
    }
  }
}

std::string Watchdog::describe(const Entry& entry) const {
  const auto found = groups_.find(entry.group);
  if (found == groups_.end()) return "a collective of a group that is gone";
  const Group& group = found->second;
  return fmt::format("{} #{} of group '{}' (rank {} of {}, world rank {}), {} {}", entry.name, entry.sequence,
                     group.name, group.rank, group.size, options_.rank, entry.count, name_of(entry.dtype));
}

std::string Watchdog::find_error() {
  for (const auto& [id, group] : groups_) {
    const std::string error = group.error();
    if (error.empty()) continue;
    const std::lock_guard lock(entries_mutex_);
    const auto oldest = std::find_if(entries_.begin(), entries_.end(), [id = id](const Entry& entry) {
      return entry.group == id && entry.state == State::queued;
    });
    const std::string what = oldest != entries_.end()
                                 ? describe(*oldest)
                                 : fmt::format("group '{}' (rank {} of {}, world rank {}), no collective in flight",
                                               group.name, group.rank, group.size, options_.rank);
    return fmt::format("{}: {}; look for the first rank that failed", what, error);
  }
  return {};
}

/// The oldest collective that is overdue, or null. With entries_mutex_.
const Watchdog::Entry* Watchdog::find_overdue() const {
  if (options_.timeout_seconds == 0) return nullptr;
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.state == State::queued && seconds_between(entry.counted_from, Clock::now()) > options_.timeout_seconds;
  });
  return found != entries_.end() ? &*found : nullptr;
}

std::string Watchdog::overdue_message() {
  const std::lock_guard lock(entries_mutex_);
  const Entry* overdue = find_overdue();
  if (overdue == nullptr) return {};
  if (!pauses_.empty()) {
    warn_of_long_wait(*overdue);
    return {};
  }
  std::int64_t captured = 0;
  for (const auto& [group, progress] : progress_) captured += progress.captured;
  const std::string replays = captured == 0
                                  ? ""
                                  : fmt::format(
                                        " (or one of the {} collectives captured into CUDA graphs, whose replays since "
                                        "the last completed one are not listed: run.cuda_graphs=false lists them)",
                                        captured);
  const std::string behind = options_.who_is_behind ? options_.who_is_behind() : "";
  return fmt::format(
      "{}: not completed {:.1f} s after it was enqueued{}: {}a rank of the group died, hangs, or is slower than "
      "parallel.timeout_seconds = {:g} allows; it is the rank that prints no dump, or whose dump has the lowest last "
      "completed number in its first line; raise the time-out where it is only slow",
      describe(*overdue), seconds_between(overdue->enqueued, Clock::now()), replays,
      behind.empty() ? "" : behind + "; or ", options_.timeout_seconds);
}

void Watchdog::warn_of_long_wait(const Entry& overdue) {
  const Clock::time_point now = Clock::now();
  if (seconds_between(warned_, now) <= options_.timeout_seconds) return;
  warned_ = now;
  log::warn("{}: not completed {:.0f} s after it was enqueued; waiting on: a rank is {}", describe(overdue),
            seconds_between(overdue.enqueued, now), pauses_.front());
}

/// With both mutexes.
std::string Watchdog::progress() const {
  std::string text;
  for (const auto& [id, group] : groups_) {
    const auto found = progress_.find(id);
    const Progress progress = found != progress_.end() ? found->second : Progress{};
    text += fmt::format("{}group '{}': last completed #{} of {}", text.empty() ? "" : "; ", group.name,
                        progress.completed, progress.begun);
  }
  return text;
}

std::string Watchdog::dump() const {
  const std::scoped_lock lock(groups_mutex_, entries_mutex_);
  std::string text = fmt::format("rank {}: {}\n", options_.rank, progress());
  std::size_t lines = 0;
  for (const Entry& entry : entries_) {
    if (lines++ == dumped_entries) {
      text += fmt::format("  and {} later ones\n", entries_.size() - dumped_entries);
      break;
    }
    const char* state = entry.state == State::done ? "done" : entry.state == State::queued ? "queued" : "captured";
    text += fmt::format("  {}: {}, enqueued {:.3f} s ago\n", describe(entry), state,
                        seconds_between(entry.enqueued, Clock::now()));
  }
  return text;
}

void Watchdog::fail(const std::string& message, std::chrono::milliseconds wait_before_end) {
  {
    const std::lock_guard lock(entries_mutex_);
    failure_ = message;
    end_ = Clock::now() + wait_before_end;
  }
  failed_.store(true, std::memory_order_release);
  log::error("watchdog: {}\n{}", message, dump());
  spdlog::default_logger_raw()->flush();
  std::this_thread::sleep_until(end_);

  std::mutex mutex;
  std::condition_variable aborted_changed;
  bool aborted = false;
  std::thread end([&] {
    std::unique_lock lock(mutex);
    aborted_changed.wait_for(lock, time_to_abort, [&] { return aborted; });
    lock.unlock();
    options_.on_failure(message);
  });
  {
    const std::lock_guard lock(groups_mutex_);
    for (const auto& [id, group] : groups_) group.abort();
  }
  {
    const std::lock_guard lock(mutex);
    aborted = true;
  }
  aborted_changed.notify_all();
  end.join();
}

}  // namespace vqlm
