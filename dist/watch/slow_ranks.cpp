#include "dist/watch/slow_ranks.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

namespace vqlm {
namespace {

// A window is long against a step's own jitter; three in a row are no accident.
constexpr std::chrono::seconds window{10};
constexpr std::int64_t steps_of_window = 3;
constexpr int windows_to_tell = 3;
constexpr double slow_factor = 2;   // of the median rank's own work,
constexpr double slow_more = 0.02;  // and seconds a step more: rank 0 also writes records
// Beats share a machine with the work: the quickest of several answers says what the network takes.
constexpr double slow_round_trip = 0.02;
constexpr double lossy = 0.04;

/// The lower one of an even number, so that one of two can be slower.
double lower_median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

SlowRanks::SlowRanks(std::vector<std::string> names, Clock::time_point now) : window_begin_(now) {
  for (std::string& name : names) ranks_.push_back({.name = std::move(name), .seen = {}});
}

void SlowRanks::beat(const Beat& beat) {
  if (beat.rank < 0 || beat.rank >= static_cast<std::int32_t>(ranks_.size())) return;
  Rank& rank = ranks_[static_cast<std::size_t>(beat.rank)];
  rank.seen = beat.seen;
  rank.round_trip = beat.round_trip;
  // Of a few beats one says nothing.
  rank.lost = beat.sent >= 32 ? static_cast<double>(beat.lost) / beat.sent : 0;
}

/// True where a window ended and every rank has a new time of its own work.
bool SlowRanks::close_window(Clock::time_point now) {
  if (now - window_begin_ < window) return false;
  const auto went_on = [](const Rank& rank) {
    return rank.seen.step >= rank.window_step + steps_of_window && !rank.seen.device;
  };
  if (!std::ranges::all_of(ranks_, went_on)) return false;
  window_begin_ = now;
  bool complete = true;
  for (Rank& rank : ranks_) {
    rank.seconds_a_step =
        (rank.seen.own_seconds - rank.window_seconds) / static_cast<double>(rank.seen.step - rank.window_step);
    complete = complete && rank.window_step > 0;  // what lies before the first step is another work
    rank.window_step = rank.seen.step;
    rank.window_seconds = rank.seen.own_seconds;
  }
  return complete;
}

void SlowRanks::judge_work(std::vector<std::string>& words) {
  std::vector<double> all;
  for (const Rank& rank : ranks_) all.push_back(rank.seconds_a_step);
  const double median = lower_median(std::move(all));
  for (Rank& rank : ranks_) {
    const bool slow = rank.seconds_a_step > slow_factor * median && rank.seconds_a_step > median + slow_more;
    rank.slow_windows = slow ? rank.slow_windows + 1 : 0;
    if (rank.slow_windows >= windows_to_tell && !std::exchange(rank.told_slow, true)) {
      words.push_back(fmt::format(
          "{}: its own work takes {:.3f} s a step, {:.1f} times the median rank's, for a while: the others wait for it "
          "(other work on its cores, a hot or throttled processor, a slow disk?)",
          rank.name, rank.seconds_a_step, rank.seconds_a_step / median));
    } else if (!slow && std::exchange(rank.told_slow, false)) {
      words.push_back(fmt::format("{}: as quick as the others again", rank.name));
    }
  }
}

void SlowRanks::judge_links(std::vector<std::string>& words) {
  for (Rank& rank : ranks_) {
    const bool slow = rank.round_trip > slow_round_trip, loses = rank.lost > lossy;
    const bool good = rank.round_trip < slow_round_trip / 2 && rank.lost < lossy / 2;
    if ((slow && !rank.told_delay) || (loses && !rank.told_loss)) {
      rank.told_delay |= slow;
      rank.told_loss |= loses;
      words.push_back(fmt::format("{}: its link to rank 0 is slow: {}{}{}", rank.name,
                                  slow ? fmt::format("{:.0f} ms there and back", 1000 * rank.round_trip) : "",
                                  slow && loses ? ", " : "",
                                  loses ? fmt::format("{:.0f} % of the beats lost", 100 * rank.lost) : ""));
    } else if (good && (rank.told_delay || rank.told_loss)) {
      rank.told_delay = rank.told_loss = false;
      words.push_back(fmt::format("{}: its link to rank 0 is good again", rank.name));
    }
  }
}

std::vector<std::string> SlowRanks::judge(Clock::time_point now) {
  std::vector<std::string> words;
  if (close_window(now)) judge_work(words);
  judge_links(words);
  return words;
}

}  // namespace vqlm
