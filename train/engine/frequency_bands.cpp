#include "train/engine/frequency_bands.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/model/head/code_map.h"

namespace vqlm {
namespace {

// Eight times as many ranks each: about equal shares of a text whose frequencies fall as 1 / rank.
constexpr std::array<std::int64_t, 4> last_ranks = {16, 128, 1024, 8192};

}  // namespace

FrequencyBands make_frequency_bands(const std::vector<std::int64_t>& counts) {
  VQLM_ASSERT(!counts.empty());
  const auto vocab = static_cast<std::int64_t>(counts.size());
  FrequencyBands result;
  std::int64_t first = 1;
  for (const std::int64_t last : last_ranks) {
    if (last >= vocab) break;
    result.bands.push_back({first, last});
    first = last + 1;
  }
  result.bands.push_back({first, vocab});

  const std::vector<std::int32_t> ranked = most_frequent_tokens(counts, vocab);
  result.band_of_token.resize(counts.size());
  for (std::size_t band = 0; band < result.bands.size(); ++band) {
    for (std::int64_t rank = result.bands[band].first_rank; rank <= result.bands[band].last_rank; ++rank) {
      const auto token = static_cast<std::size_t>(ranked[static_cast<std::size_t>(rank - 1)]);
      result.band_of_token[token] = static_cast<std::uint8_t>(band);
    }
  }
  return result;
}

}  // namespace vqlm
