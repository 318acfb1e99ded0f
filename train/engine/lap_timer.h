// How long repeated work takes, on the host or on a device.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/backend.h"
#include "train/engine/stopwatch.h"

namespace vqlm {

/// Times of laps. On a device they lie between time marks in the compute stream: the host queues laps without waiting for
/// them and its clock plays no part. On the host they are measured by `clock`.
class LapTimer {
 public:
  explicit LapTimer(Backend& backend, Clock clock = wall_seconds) : backend_(backend), clock_(clock) {}

  /// The first call begins a lap, every further one ends it and begins the next.
  void lap() {
    if (backend_.host_accessible()) {
      times_.push_back(clock_());
    } else {
      marks_.push_back(backend_.mark_time(backend_.compute_stream()));
    }
  }

  /// Of every lap so far; waits for the device.
  std::vector<double> seconds() {
    std::vector<double> laps;
    for (std::size_t i = 1; i < times_.size(); ++i) laps.push_back(times_[i] - times_[i - 1]);
    for (std::size_t i = 1; i < marks_.size(); ++i) {
      laps.push_back(backend_.seconds_between(marks_[i - 1], marks_[i]));
    }
    return laps;
  }

 private:
  Backend& backend_;
  Clock clock_;
  std::vector<double> times_;
  std::vector<Event> marks_;
};

/// Seconds of one call.
struct CallTime {
  double seconds = 0;      // median of the laps
  double seconds_min = 0;  // of the fastest lap
  int calls = 0;           // of a lap
};

/// Repeats `work` in `laps` laps of as many calls as fill about `seconds` in all (at least one call a lap), after calls that
/// touch memory and build plans.
template <class Work>
CallTime time_calls(Backend& backend, const Work& work, double seconds, int laps) {
  work();
  backend.synchronize();
  LapTimer trial(backend);
  trial.lap();
  for (int i = 0; i < 3; ++i) {
    work();
    trial.lap();
  }
  const std::vector<double> tried = trial.seconds();
  const double one = std::max(1e-7, *std::min_element(tried.begin(), tried.end()));
  const int calls = static_cast<int>(std::clamp(std::round(seconds / laps / one), 1.0, 1e5));
  LapTimer timer(backend);
  timer.lap();
  for (int lap = 0; lap < laps; ++lap) {
    for (int call = 0; call < calls; ++call) work();
    timer.lap();
  }
  const std::vector<double> took = timer.seconds();
  return {median(took) / calls, *std::min_element(took.begin(), took.end()) / calls, calls};
}

}  // namespace vqlm
