#include "core/model/head/token_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"

namespace vqlm {

void refuse_nan() {
  throw Error(
      "the model gives probabilities that are not numbers (NaN): its parameters, or what it computed from this text, "
      "are not finite; try an earlier checkpoint");
}

std::vector<TokenLogProb> most_probable_of(std::span<const float> log_probs, std::int64_t count, double mass) {
  VQLM_ASSERT(!log_probs.empty());
  TokenLogProb best{0, log_probs[0]};
  for (std::size_t v = 0; v < log_probs.size(); ++v) {
    if (std::isnan(log_probs[v])) refuse_nan();
    if (log_probs[v] > best.log_prob) best = {static_cast<std::int32_t>(v), log_probs[v]};
  }
  if (count <= 1) return {best};
  std::vector<TokenLogProb> heap(log_probs.size()), chosen;
  for (std::size_t v = 0; v < heap.size(); ++v) heap[v] = {static_cast<std::int32_t>(v), log_probs[v]};
  std::make_heap(heap.begin(), heap.end(), less_probable);
  double total = 0;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), less_probable);
    chosen.push_back(heap.back());
    heap.pop_back();
    total += std::exp(static_cast<double>(chosen.back().log_prob));
    if (std::cmp_greater_equal(chosen.size(), count) || total >= mass) break;
  }
  return chosen;
}

std::size_t draw(std::span<const double> log_weights, const std::function<double()>& uniform,
                 std::vector<double>& weights) {
  double largest = -std::numeric_limits<double>::infinity();
  for (double w : log_weights) {
    if (std::isnan(w)) refuse_nan();
    largest = std::max(largest, w);
  }
  if (!std::isfinite(largest)) refuse_nan();
  weights.resize(log_weights.size());
  double total = 0;
  std::size_t last = 0;  // with a weight: where rounding lets the sum end below `left`
  for (std::size_t i = 0; i < log_weights.size(); ++i) {
    weights[i] = std::exp(log_weights[i] - largest);
    total += weights[i];
    if (weights[i] > 0) last = i;
  }
  double left = uniform() * total;
  for (std::size_t i = 0; i < last; ++i) {
    left -= weights[i];
    if (left < 0) return i;
  }
  return last;
}

std::int32_t sample_of(std::span<const float> log_probs, float temperature, const std::function<double()>& uniform,
                       std::vector<double>& scaled, std::vector<double>& weights) {
  VQLM_ASSERT(temperature > 0);
  scaled.resize(log_probs.size());
  for (std::size_t v = 0; v < log_probs.size(); ++v) {
    scaled[v] = static_cast<double>(log_probs[v]) / static_cast<double>(temperature);
  }
  return static_cast<std::int32_t>(draw(scaled, uniform, weights));
}

}  // namespace vqlm
