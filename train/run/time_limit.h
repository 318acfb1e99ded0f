// When a run has to be over, by a clock that never goes back.
#pragma once

#include <limits>
#include <string>

namespace vqlm {

/// Seconds of "3600", "90s", "90m", "12h", "2d", "23:55:00" or, as Slurm writes it, "1-12:00:00". Throws UsageError quoting
/// what is none of these, or no time at all.
double parse_duration(const std::string& text);

class TimeLimit {
 public:
  /// None.
  TimeLimit() = default;
  /// `seconds` from now.
  explicit TimeLimit(double seconds);

  /// Until the limit; infinity without one.
  double seconds_left() const;
  /// What was asked for.
  double seconds() const { return seconds_; }

 private:
  double seconds_ = std::numeric_limits<double>::infinity();
  double end_ = std::numeric_limits<double>::infinity();
};

}  // namespace vqlm
