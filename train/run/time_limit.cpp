#include "train/run/time_limit.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

/// Digits only; at most 9 of them, which is 30 years in seconds.
std::optional<double> whole_number(std::string_view text) {
  unsigned number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || text.size() > 9 || status != std::errc() || end != text.data() + text.size()) return {};
  return number;
}

/// "HH:MM:SS".
std::optional<double> clock_seconds(std::string_view text) {
  double seconds = 0;
  for (int field = 0; field < 3; ++field) {
    const std::size_t colon = text.find(':');
    if ((colon == std::string_view::npos) != (field == 2)) return {};
    const auto number = whole_number(text.substr(0, colon));
    if (!number || (field > 0 && *number > 59)) return {};
    seconds = 60 * seconds + *number;
    text.remove_prefix(field < 2 ? colon + 1 : 0);
  }
  return seconds;
}

std::optional<double> seconds_of(std::string_view text) {
  constexpr double day = 86400;
  if (const std::size_t dash = text.find('-'); dash != std::string_view::npos) {
    const auto days = whole_number(text.substr(0, dash));
    const auto rest = clock_seconds(text.substr(dash + 1));
    return days && rest ? std::optional(*days * day + *rest) : std::nullopt;
  }
  if (text.find(':') != std::string_view::npos) return clock_seconds(text);
  struct Unit {
    char letter;
    double seconds;
  };
  constexpr std::array units = {Unit{'s', 1}, Unit{'m', 60}, Unit{'h', 3600}, Unit{'d', day}};
  double unit = 1;
  for (const Unit& candidate : units) {
    if (!text.ends_with(candidate.letter)) continue;
    unit = candidate.seconds;
    text.remove_suffix(1);
    break;
  }
  const auto number = whole_number(text);
  return number ? std::optional(*number * unit) : std::nullopt;
}

}  // namespace

double parse_duration(const std::string& text) {
  const auto seconds = seconds_of(text);
  if (!seconds || *seconds == 0) {
    throw UsageError(
        fmt::format("--time-limit {}: not a time; write seconds (3600), 90m, 12h, 23:55:00 or 1-12:00:00", text));
  }
  return *seconds;
}

TimeLimit::TimeLimit(double seconds) : seconds_(seconds), end_(wall_seconds() + seconds) {}

double TimeLimit::seconds_left() const {
  return end_ - wall_seconds();
}

}  // namespace vqlm
