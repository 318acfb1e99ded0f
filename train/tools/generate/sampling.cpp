#include "train/tools/generate/sampling.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {
namespace {

constexpr double all_mass = 2;  // a total probability that is never reached

// A number's index in the stream of its sequence: draw i at a position. Rejection takes a few draws a token.
constexpr int draw_bits = 24;

}  // namespace

void check_sampling(const SamplingOptions& options) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    throw UsageError(
        fmt::format("--temperature {}: must be 0 (always the most probable token) or above", options.temperature));
  }
  if (options.top_k < 0) {
    throw UsageError(fmt::format("--top-k {}: must be a number of tokens, or 0 for all", options.top_k));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw UsageError(fmt::format("--top-p {}: must be above 0 and at most 1 (all tokens)", options.top_p));
  }
}

TokenSampler::TokenSampler(Backend& backend, OutputHead& head, std::int64_t vocab_size, const SamplingOptions& options)
    : backend_(backend), head_(head), vocab_size_(vocab_size), options_(options) {
  check_sampling(options_);
  if (options_.top_k >= vocab_size_) options_.top_k = 0;
}

std::int32_t TokenSampler::choose(Tensor h, std::int64_t sequence, std::int64_t position) {
  if (options_.temperature == 0) return head_.most_probable(h, 1, all_mass).front().token;
  const Philox rng(options_.seed, static_cast<std::uint64_t>(sequence));
  std::uint64_t index = static_cast<std::uint64_t>(position) << draw_bits;
  const std::function<double()> uniform = [&] { return static_cast<double>(rng.bits(index++) >> 11) * 0x1p-53; };
  if (options_.top_k == 0 && options_.top_p == 1) return head_.sample(h, options_.temperature, uniform);

  const std::vector<TokenLogProb> among = candidates(h);
  log_weights_.resize(among.size());
  for (std::size_t i = 0; i < among.size(); ++i) {
    log_weights_[i] = static_cast<double>(among[i].log_prob) / static_cast<double>(options_.temperature);
  }
  return among[draw(log_weights_, uniform, weights_)].token;
}

std::vector<TokenLogProb> TokenSampler::candidates(Tensor h) {
  if (options_.top_k == 0) {
    return options_.temperature == 1 ? head_.most_probable(h, vocab_size_, options_.top_p) : candidates_of_all(h);
  }
  std::vector<TokenLogProb> among = head_.most_probable(h, options_.top_k, all_mass);
  if (options_.top_p == 1) return among;
  // Probabilities of what top-k left, at the temperature; its first is the largest.
  const auto weight = [&](const TokenLogProb& t) {
    return std::exp(static_cast<double>(t.log_prob - among.front().log_prob) /
                    static_cast<double>(options_.temperature));
  };
  double total = 0, sum = 0;
  for (const TokenLogProb& t : among) total += weight(t);
  std::size_t kept = 0;
  while (kept < among.size() && sum < options_.top_p * total) sum += weight(among[kept++]);
  among.resize(kept);
  return among;
}

std::vector<TokenLogProb> TokenSampler::candidates_of_all(Tensor h) {
  if (row_.empty()) {
    row_.resize(static_cast<std::size_t>(vocab_size_));
    row_storage_ = backend_.allocate(row_.size() * sizeof(float), MemoryUse::workspace);
  }
  const Tensor device_row = row_storage_.view({1, vocab_size_});
  head_.log_probs(device_row, h);
  backend_.copy_to_host(row_.data(), device_row);
  const double temperature = static_cast<double>(options_.temperature);
  const float largest = *std::max_element(row_.begin(), row_.end());
  double total = 0;
  for (float x : row_) total += std::exp(static_cast<double>(x - largest) / temperature);
  const double shift = std::log(total);
  std::vector<float> scaled(row_.size());
  for (std::size_t v = 0; v < row_.size(); ++v) {
    scaled[v] = static_cast<float>(static_cast<double>(row_[v] - largest) / temperature - shift);
  }
  std::vector<TokenLogProb> among = most_probable_of(scaled, vocab_size_, options_.top_p);
  for (TokenLogProb& t : among) t.log_prob = row_[static_cast<std::size_t>(t.token)];
  return among;
}

}  // namespace vqlm
