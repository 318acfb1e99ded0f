#include "train/codes/class_sums.h"

#include <algorithm>
#include <cmath>

#include "core/host_collectives.h"

namespace vqlm {
namespace {

// Numbers that one reduction carries: 8 MiB of device memory, not V r times 8 bytes at once.
constexpr std::size_t piece = std::size_t{1} << 20;

void sum_integers(Backend& backend, Communicator& group, std::vector<std::int64_t>& values) {
  if (group.size() == 1) return;
  for (std::size_t begin = 0; begin < values.size(); begin += piece) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = first + static_cast<std::ptrdiff_t>(std::min(piece, values.size() - begin));
    std::vector<double> part(first, last);
    sum_over(backend, group, part);
    std::transform(part.begin(), part.end(), first, [](double value) { return static_cast<std::int64_t>(value); });
  }
}

}  // namespace

ClassSums::ClassSums(std::int64_t vocabulary, std::int64_t dimensions)
    : vocab_size(vocabulary),
      dims(dimensions),
      sums(static_cast<std::size_t>(vocabulary * dimensions), 0),
      counts(static_cast<std::size_t>(vocabulary), 0) {}

void ClassSums::add(std::span<const float> rows, std::span<const std::int32_t> targets) {
  const auto width = static_cast<std::size_t>(dims);
  VQLM_ASSERT(rows.size() == targets.size() * width);
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] < 0) continue;
    VQLM_ASSERT(targets[n] < vocab_size);
    const auto token = static_cast<std::size_t>(targets[n]);
    ++counts[token];
    std::int64_t* const to = sums.data() + token * width;
    const float* const from = rows.data() + n * width;
    for (std::size_t i = 0; i < width; ++i) {
      const double value = std::clamp(static_cast<double>(from[i]), -largest, largest);
      to[i] += static_cast<std::int64_t>(std::nearbyint(value / unit));
    }
  }
}

ClassSums total_over(Backend& backend, Communicator& group, const ClassSums& own) {
  ClassSums total = own;
  sum_integers(backend, group, total.sums);
  sum_integers(backend, group, total.counts);
  return total;
}

}  // namespace vqlm
