#include "core/adaptive_bands.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace vqlm {
namespace {

/// 1 + 1/2 + ... + 1/n, by the Euler-Maclaurin series from 64 terms on: its error there is 1 / (252 64^6), 6e-14.
double harmonic_number(std::int64_t n) {
  constexpr std::int64_t summed = 64;
  double sum = 0;
  for (std::int64_t r = 1; r <= std::min(n, summed); ++r) sum += 1 / static_cast<double>(r);
  if (n <= summed) return sum;
  const auto series = [](double x) { return std::log(x) + 1 / (2 * x) - 1 / (12 * x * x) + 1 / (120 * x * x * x * x); };
  return sum + series(static_cast<double>(n)) - series(static_cast<double>(summed));
}

}  // namespace

std::vector<std::int64_t> cutoffs_of(const AdaptiveHeadConfig& head, std::int64_t vocab_size) {
  return head.cutoffs.empty() ? default_cutoffs(vocab_size) : head.cutoffs;
}

std::vector<std::int64_t> default_cutoffs(std::int64_t vocab_size) {
  const std::int64_t first = std::max<std::int64_t>(1, vocab_size / 8);
  return {first, std::max(first + 1, vocab_size / 2)};
}

std::vector<AdaptiveBand> adaptive_bands(const AdaptiveHeadConfig& head, std::int64_t vocab_size,
                                         std::int64_t d_model) {
  std::vector<std::int64_t> ends = cutoffs_of(head, vocab_size);
  ends.push_back(vocab_size);
  std::vector<AdaptiveBand> bands;
  std::int64_t begin = 0, width = d_model;
  for (const std::int64_t end : ends) {
    VQLM_ASSERT(end > begin);
    const double mass = (harmonic_number(end) - harmonic_number(begin)) / harmonic_number(vocab_size);
    bands.push_back({.tokens = end - begin, .width = width, .mass = mass});
    begin = end;
    width = std::max<std::int64_t>(1, width / head.tail_ratio);
  }
  return bands;
}

}  // namespace vqlm
