// Tokens for benchmarks, drawn with the uneven frequencies of natural text, so that clusters and cache lines are used
// as unevenly as in training.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace vqlm {

enum class TokenDistribution { zipf, uniform };

/// Counts (V), each at least 1. Zipf: token v has a share proportional to 1 / (v + 2.7) (Mandelbrot 1953; the offset
/// is that of English words), so ids fall in frequency as a tokenizer's pieces do.
std::vector<std::int64_t> synthetic_counts(TokenDistribution distribution, std::int64_t vocab_size);

/// `count` tokens with frequencies proportional to `counts` (V), a function of (seed, name) alone.
std::vector<std::int32_t> draw_tokens(const std::vector<std::int64_t>& counts, std::int64_t count, std::uint64_t seed,
                                      std::string_view name);

}  // namespace vqlm
