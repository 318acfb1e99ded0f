// How the next token is chosen: temperature, then top-k, then top-p, as in Hugging Face's generate().
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/head/output_head.h"

namespace vqlm {

struct SamplingOptions {
  float temperature = 1;   // p(v)^(1 / temperature), normalised; 0: always the most probable token
  std::int64_t top_k = 0;  // only among so many most probable tokens; 0: all. Of equals the lower ids
  double top_p = 1;  // only among the fewest most probable ones whose probabilities, after temperature and top-k, add
                     // up to this; 1: all
  std::uint64_t seed = 0;
};

/// Throws UsageError naming the option, its value and what it may be.
void check_sampling(const SamplingOptions& options);

/// Which way leads to a token without a pass over the vocabulary, where the head knows one: a search by bound for temperature
/// 0, top-k, and top-p at temperature 1; exact sampling by the head without top-k and top-p. Only top-p alone at another
/// temperature takes the log-probabilities of all tokens.
class TokenSampler {
 public:
  /// The back end and the head must outlive the sampler.
  TokenSampler(Backend& backend, OutputHead& head, std::int64_t vocab_size, const SamplingOptions& options);

  /// The token at `position` of a sequence after the hidden state h (1, d). The same for the same (seed, sequence, position,
  /// h), whatever else is generated beside it.
  std::int32_t choose(Tensor h, std::int64_t sequence, std::int64_t position);

 private:
  std::vector<TokenLogProb> candidates(Tensor h);
  /// The whole vocabulary's log-probabilities at the temperature, most probable first, down to top_p.
  std::vector<TokenLogProb> candidates_of_all(Tensor h);

  Backend& backend_;
  OutputHead& head_;
  std::int64_t vocab_size_;
  SamplingOptions options_;
  Buffer row_storage_;  // (1, V), made where candidates_of_all() is called
  std::vector<float> row_;
  std::vector<double> log_weights_, weights_;
};

}  // namespace vqlm
