// The map of an adaptive head: which band every token is in. Its clusters are the bands of core/adaptive_bands.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/adaptive_bands.h"
#include "core/model/head/code_map.h"

namespace vqlm {

/// Which band every token is in, as a map of bands() clusters: by falling count, the lower id first among equals. counts (V);
/// provenance says their shares of the counted text.
CodeMap make_band_map(const AdaptiveHeadConfig& head, const std::vector<std::int64_t>& counts);
/// The same without counts: by rising id. Of the same sizes, for plans.
CodeMap contiguous_band_map(const AdaptiveHeadConfig& head, std::int64_t vocab_size);
/// Throws Error naming `origin` where a map's bands are not as large as the configuration's.
void check_band_map(const CodeMap& map, const AdaptiveHeadConfig& head, const std::string& origin);

}  // namespace vqlm
