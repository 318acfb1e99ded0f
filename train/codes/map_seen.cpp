#include "train/codes/map_seen.h"

#include <spdlog/fmt/fmt.h>

#include <charconv>
#include <string_view>

namespace vqlm {
namespace {

/// The number that stands in `text` between `before` and `after`; 0 where there is none.
std::int64_t number_between(std::string_view text, std::string_view before, std::string_view after) {
  if (!text.starts_with(before)) return 0;
  text.remove_prefix(before.size());
  std::int64_t number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc() || number < 0) return 0;
  return text.substr(static_cast<std::size_t>(end - text.data())).starts_with(after) ? number : 0;
}

}  // namespace

std::int64_t counted_in_provenance(const std::string& provenance) {
  if (const auto n = number_between(provenance, "corpus: neighbours of ", " tokens"); n > 0) return n;
  if (const auto n = number_between(provenance, "frequency: ", " counted tokens"); n > 0) return n;
  return number_between(provenance, "re-fit: hidden states of ", " tokens");
}

std::optional<double> times_trained(std::int64_t counted_tokens, double trained_tokens) {
  constexpr double noticeable = 1.005;  // less would read "1.00 times"
  if (counted_tokens <= 0 || trained_tokens <= 0) return std::nullopt;
  const double times = static_cast<double>(counted_tokens) / trained_tokens;
  return times < noticeable ? std::nullopt : std::optional(times);
}

std::string times_trained_text(std::int64_t counted_tokens, double trained_tokens) {
  const auto times = times_trained(counted_tokens, trained_tokens);
  if (!times) return "";
  return fmt::format(", {} times the tokens that are trained on",
                     *times < 100 ? fmt::format("{:.3g}", *times) : fmt::format("{:.0f}", *times));
}

}  // namespace vqlm
