// Checks of the keys that make a body other than Llama's.
#pragma once

#include "train/config/config.h"

namespace vqlm {

/// Of several ways to say the same body, takes the one with the defaults, so that models compare.
void normalize_body(ModelConfig& model);

/// Throws UsageError naming keys and values that do not go together, and a choice that does.
void check_body(const Config& config);

/// Sets model.document_end by data.document_mask: eos_id is the shards', below 0 where none ends documents; shards names them.
/// Throws UsageError where there is none and the mask is asked for.
void mark_documents(Config& config, std::int32_t eos_id, const std::string& shards);

}  // namespace vqlm
