#include "dist/watch/heartbeat_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "dist/watch/seconds.h"

namespace vqlm {
namespace {

// Beats of the ranks of a host that is gone end within one beat of each other.
constexpr double same_silence = 0.8;
// Several beats, in seconds.
constexpr double recent = 5;
// A rank is worth a word long before it ends the job.
constexpr double early_word = 1.0 / 3;

auto progress_of(const RankActivity::Seen& seen) {
  return std::tuple(seen.step, seen.collectives);
}

}  // namespace

std::string doing(const RankActivity::Seen& seen) {
  const std::string step = seen.step > 0 ? fmt::format("in step {}", seen.step) : "before the first step";
  if (seen.last.empty()) return step;
  const char* const where = seen.device ? ", having enqueued " : seen.waiting ? ", waiting in " : ", after ";
  return fmt::format("{}{}{} (#{})", step, where, seen.last, seen.collectives);
}

HeartbeatTable::HeartbeatTable(std::vector<std::string> hosts, Clock::time_point now) : begin_(now) {
  for (std::string& host : hosts) ranks_.push_back({.host = std::move(host), .last = now, .changed = now, .seen = {}});
}

std::string HeartbeatTable::name_of(int rank) const {
  return fmt::format("rank {} on {}", rank, ranks_[static_cast<std::size_t>(rank)].host);
}

void HeartbeatTable::beat(const Beat& beat, Clock::time_point now) {
  if (beat.rank < 0 || beat.rank >= ranks()) return;
  Rank& rank = ranks_[static_cast<std::size_t>(beat.rank)];
  const auto tells = [](const RankActivity::Seen& seen) { return std::tuple(progress_of(seen), seen.waiting); };
  if (tells(rank.seen) != tells(beat.seen)) rank.changed = now;
  rank.seen = beat.seen;
  rank.last = now;
  rank.heard = true;
  if (!beat.seen.pause.empty()) last_pause_ = now;
  rank.left = rank.left || beat.leaves;
}

void HeartbeatTable::forgive(Clock::duration gap) {
  for (Rank& rank : ranks_) {
    rank.last += gap;
    rank.changed += gap;
  }
}

void HeartbeatTable::begin_anew(Clock::time_point now) {
  for (Rank& rank : ranks_) rank.last = rank.changed = now;
  begin_ = now;
}

double HeartbeatTable::silence(const Rank& rank, Clock::time_point now) const {
  return seconds_between(rank.last, now);
}

bool HeartbeatTable::is_silent(const Rank& rank, double seconds, Clock::time_point now) const {
  return is_known(rank) && silence(rank, now) > seconds;
}

/// How long the rank has done the same, by its own clock or this one's, whichever knows of more.
double HeartbeatTable::unchanged(const Rank& rank, Clock::time_point now) const {
  return std::max(rank.seen.seconds, seconds_between(rank.changed, now));
}

/// The failure for want of a sign of life, or nothing.
std::string HeartbeatTable::silent(double heartbeat_seconds, Clock::time_point now) const {
  const auto found =
      std::ranges::find_if(ranks_, [&](const Rank& rank) { return is_silent(rank, heartbeat_seconds, now); });
  if (found == ranks_.end()) return {};
  std::vector<int> of_host, silent_ones;
  for (int i = 0; i < ranks(); ++i) {
    const Rank& rank = ranks_[static_cast<std::size_t>(i)];
    if (rank.host != found->host) continue;
    of_host.push_back(i);
    if (is_silent(rank, same_silence * heartbeat_seconds, now)) silent_ones.push_back(i);
  }
  const double seconds = silence(*found, now);
  if (of_host.size() > 1 && silent_ones.size() == of_host.size()) {
    return fmt::format(
        "host {}: no sign of life from its {} ranks (the first: {}) for {:.0f} s: it is down, hangs, or its network is cut "
        "(last seen {}); parallel.heartbeat_seconds = {:g}",
        found->host, of_host.size(), of_host.front(), seconds, doing(found->seen), heartbeat_seconds);
  }
  return fmt::format(
      "{}: no sign of life for {:.0f} s: its process is stopped, swaps or is gone, or its host or network is down (last seen "
      "{}); parallel.heartbeat_seconds = {:g}",
      name_of(static_cast<int>(found - ranks_.begin())), seconds, doing(found->seen), heartbeat_seconds);
}

/// Ranks that have begun less than the one that has begun most.
std::vector<int> HeartbeatTable::behind() const {
  std::vector<int> found;
  std::tuple<std::int64_t, std::int64_t> most{0, 0}, least{};
  for (int i = 0; i < ranks(); ++i) {
    const Rank& rank = ranks_[static_cast<std::size_t>(i)];
    if (!is_known(rank)) continue;
    const auto progress = progress_of(rank.seen);
    most = std::max(most, progress);
    if (found.empty() || progress < least) {
      found = {i};
      least = progress;
    } else if (progress == least) {
      found.push_back(i);
    }
  }
  if (least == most) found.clear();
  return found;
}

std::string HeartbeatTable::who_is_behind(Clock::time_point now) const {
  const std::vector<int> late = behind();
  if (late.empty()) return {};
  const Rank& first = ranks_[static_cast<std::size_t>(late.front())];
  const std::string others = late.size() == 1 ? "" : fmt::format(", as {} others", late.size() - 1);
  return fmt::format("{} is behind the others: {}, unchanged for {:.0f} s{}", name_of(late.front()), doing(first.seen),
                     unchanged(first, now), others);
}

/// The failure for want of progress, or nothing: some rank waits for too long in a collective of the host. To blame is a
/// rank that is in none, or else one that has begun fewest.
std::string HeartbeatTable::stuck(double timeout_seconds, Clock::time_point now) const {
  // Of one that is not heard any more nobody knows what it does now.
  const auto speaks = [&](const Rank& rank) { return is_known(rank) && silence(rank, now) < recent; };
  const auto waits = [&](const Rank& rank, double seconds) {
    return speaks(rank) && !rank.seen.device && rank.seen.waiting && unchanged(rank, now) > seconds;
  };
  const auto waiting = std::ranges::find_if(ranks_, [&](const Rank& rank) { return waits(rank, timeout_seconds); });
  if (waiting == ranks_.end()) return {};
  const auto works = [&](const Rank& rank) {
    return speaks(rank) && !rank.seen.waiting && unchanged(rank, now) > timeout_seconds / 2;
  };
  const std::string waiter = fmt::format(
      "{} of {} ranks wait ({}: {}, for {:.0f} s)",
      std::ranges::count_if(ranks_, [&](const Rank& rank) { return waits(rank, timeout_seconds / 2); }), ranks(),
      name_of(static_cast<int>(waiting - ranks_.begin())), doing(waiting->seen), unchanged(*waiting, now));
  const std::string way_out =
      fmt::format("raise parallel.timeout_seconds = {:g} where it is only slow", timeout_seconds);
  if (const auto guilty = std::ranges::find_if(ranks_, works); guilty != ranks_.end()) {
    return fmt::format("{}: no progress for {:.0f} s in its own work ({}), while {}; {}",
                       name_of(static_cast<int>(guilty - ranks_.begin())), unchanged(*guilty, now), doing(guilty->seen),
                       waiter, way_out);
  }
  const std::string late = who_is_behind(now);
  return fmt::format("{}: {}; {}", late.empty() ? "no rank is behind, and none goes on" : late, waiter, way_out);
}

void HeartbeatTable::warn_of_silence(const HeartbeatLimits& limits, Clock::time_point now,
                                     std::vector<std::string>& warnings) {
  for (int i = 0; i < ranks(); ++i) {
    Rank& rank = ranks_[static_cast<std::size_t>(i)];
    const bool silent = is_silent(rank, early_word * limits.heartbeat_seconds, now);
    if (silent && !rank.warned) {
      warnings.push_back(fmt::format("{}: no sign of life for {:.0f} s; waiting until {:g} s", name_of(i),
                                     silence(rank, now), limits.heartbeat_seconds));
    } else if (!silent && rank.warned) {
      warnings.push_back(fmt::format("{}: gives signs of life again", name_of(i)));
    }
    rank.warned = silent;
  }
}

void HeartbeatTable::warn_of_unheard(const HeartbeatLimits& limits, Clock::time_point now,
                                     std::vector<std::string>& warnings) {
  if (told_unheard_ || seconds_between(begin_, now) < limits.heartbeat_seconds) return;
  told_unheard_ = true;
  const auto unheard = [](const Rank& rank) { return !rank.heard && !rank.left; };
  const auto first = std::ranges::find_if(ranks_, unheard);
  if (first == ranks_.end()) return;
  warnings.push_back(fmt::format(
      "no beat of {} of {} ranks has come (the first: {}): a firewall between hosts may drop UDP, or the wrong network is "
      "used (launch/mpirun.sh --interface); whether they live is not watched",
      std::ranges::count_if(ranks_, unheard), ranks(), name_of(static_cast<int>(first - ranks_.begin()))));
}

HeartbeatVerdict HeartbeatTable::judge(const HeartbeatLimits& limits, Clock::time_point now) {
  HeartbeatVerdict verdict;
  if (limits.heartbeat_seconds > 0) {
    warn_of_silence(limits, now, verdict.warnings);
    warn_of_unheard(limits, now, verdict.warnings);
    verdict.failure = silent(limits.heartbeat_seconds, now);
  }
  if (!verdict.failure.empty() || limits.timeout_seconds <= 0) return verdict;
  std::string failure = stuck(limits.timeout_seconds, now);
  const auto paused = std::ranges::find_if(ranks_, [](const Rank& rank) { return !rank.seen.pause.empty(); });
  if (failure.empty()) {
    told_pause_ = false;
  } else if (paused == ranks_.end()) {
    // Those that waited for it have not told of its end yet, or what came after it takes its time.
    const bool patient = last_pause_ && seconds_between(*last_pause_, now) < limits.timeout_seconds;
    if (!patient) verdict.failure = std::move(failure);
  } else if (!std::exchange(told_pause_, true)) {
    verdict.warnings.push_back(fmt::format("{}; waiting on: a rank is {}", failure, paused->seen.pause));
  }
  return verdict;
}

}  // namespace vqlm
