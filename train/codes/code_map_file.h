// A code map as a small HDF5 file:
//
//   /cluster_of_token  int32 (V)          /member_codes  uint8 (V, G), absent where G = 0
//   /counts            int64 (V), optional: how often each token was seen where the map was made
//   /vectors           float32 (V, D), optional: what clusters and codes were fitted to
//   attributes         format = "vqlm-code-map", version, vocab_size, clusters, groups, codes, provenance, counted_tokens
//                      (absent in files of earlier versions)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"

namespace vqlm {

/// What a map was made from, so far as it was kept; a head reads none of it.
struct MapEvidence {
  std::vector<std::int64_t> counts;  // (V) or empty
  std::int64_t dims = 0;
  std::vector<float> vectors;  // (V, dims) or empty
};

/// Writes PATH.partial and renames it when it is durable. The map must be valid. The same map and evidence give the same
/// bytes.
void save_code_map(const std::string& path, const CodeMap& map, const MapEvidence& evidence = {});

/// Throws Error naming the file for what is damaged, of another format or version, or no valid map.
CodeMap load_code_map(const std::string& path);

/// What of it the file holds. Throws Error naming file and dataset for what is damaged or of another shape.
MapEvidence load_map_evidence(const std::string& path);

}  // namespace vqlm
