// Choosing tokens from log-probabilities in host memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace vqlm {

struct TokenLogProb {
  std::int32_t token = 0;
  float log_prob = 0;  // nats
};

/// True where a comes after b among the most probable: falling probability, the lower id first among equals. The order
/// that makes a heap's front the most probable token.
inline bool less_probable(const TokenLogProb& a, const TokenLogProb& b) {
  return a.log_prob != b.log_prob ? a.log_prob < b.log_prob : a.token > b.token;
}

/// OutputHead::most_probable() on a whole row: log_probs (V). Throws Error for a NaN.
std::vector<TokenLogProb> most_probable_of(std::span<const float> log_probs, std::int64_t count, double mass);

/// An index drawn with probability proportional to exp(log_weights[i]); -infinity is never drawn. Takes one number in
/// [0, 1) from `uniform`. `weights` is working memory. Throws Error for a NaN, or where all are -infinity.
std::size_t draw(std::span<const double> log_weights, const std::function<double()>& uniform,
                 std::vector<double>& weights);

/// OutputHead::sample() on a whole row: log_probs (V). `scaled` and `weights` are working memory.
std::int32_t sample_of(std::span<const float> log_probs, float temperature, const std::function<double()>& uniform,
                       std::vector<double>& scaled, std::vector<double>& weights);

/// Throws the Error for NaN among probabilities.
[[noreturn]] void refuse_nan();

}  // namespace vqlm
