// The bands of an adaptive softmax (Grave et al., arXiv 1609.04309): band 0 is the head words, the most frequent tokens; the
// tail bands 1, 2, ... hold the others by falling count.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_config.h"

namespace vqlm {

/// V / 8 and V / 2, at least 1 and 2: by Zipf's law the bands then get 82, 12 and 6 % of a text of 50,257 tokens.
std::vector<std::int64_t> default_cutoffs(std::int64_t vocab_size);

/// head.cutoffs, or the default where it is empty.
std::vector<std::int64_t> cutoffs_of(const AdaptiveHeadConfig& head, std::int64_t vocab_size);

/// One band. Tokens are told apart by softmax over `tokens` classes, band 0's over one more for each tail band.
struct AdaptiveBand {
  std::int64_t tokens;  // more than 0
  std::int64_t width;   // of the hidden states that its members are scored with: d, then d / tail_ratio^i, at least 1
  double mass;          // its share of a text by Zipf's law, p(rank r) ~ 1 / r: what costs are counted with
};

/// The bands of a configuration whose cutoffs fit the vocabulary (config_head_check.h).
std::vector<AdaptiveBand> adaptive_bands(const AdaptiveHeadConfig& head, std::int64_t vocab_size, std::int64_t d_model);

}  // namespace vqlm
