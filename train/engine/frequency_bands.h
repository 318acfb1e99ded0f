// Bands of a vocabulary by how often its tokens occur in the training text: where a head loses is a question of rare and
// frequent tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace vqlm {

struct FrequencyBands {
  /// Ranks from 1, the most frequent token's, both ends included.
  struct Band {
    std::int64_t first_rank = 0;
    std::int64_t last_rank = 0;
  };
  std::vector<Band> bands;                  // frequent ones first; each has at least one token
  std::vector<std::uint8_t> band_of_token;  // (V)
};

/// Tokens ranked by falling count (ties: the smaller id first), cut after ranks 16, 128, 1,024 and 8,192; the last band
/// ends with the vocabulary. counts (V), V >= 1.
FrequencyBands make_frequency_bands(const std::vector<std::int64_t>& counts);

}  // namespace vqlm
