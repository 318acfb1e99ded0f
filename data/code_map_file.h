// A code map as a small HDF5 file:
//
//   /cluster_of_token  int32 (V)          /member_codes  uint8 (V, G), absent where G = 0
//   attributes         format = "vqlm-code-map", version, vocab_size, clusters, groups, codes, provenance
#pragma once

#include <string>

#include "core/model/code_map.h"

namespace vqlm {

/// Writes PATH.partial and renames it when it is durable. The map must be valid.
void save_code_map(const std::string& path, const CodeMap& map);

/// Throws Error naming the file for what is damaged, of another format or version, or no valid map.
CodeMap load_code_map(const std::string& path);

}  // namespace vqlm
