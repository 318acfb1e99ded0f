// Models as Hugging Face folders, which transformers loads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "train/checkpoint/model_source.h"

namespace vqlm {

struct HfWriteOptions {
  std::string dtype = "float32";              // or "bfloat16", "float16"
  std::uint64_t shard_bytes = 2'000'000'000;  // a larger model becomes several files and an index
  bool expand = false;  // stock Llama or nothing, also for VQ and low-rank heads and heads with a bias
};

/// Writes config.json, generation_config.json, the weights and the tokenizer's files into the folder `out`, which is made
/// where it is not there. A dense head whose bias is absent or zero everywhere becomes stock LlamaForCausalLM; any other the
/// native form (docs/convert.md), or, with options.expand, stock Llama where that computes the same. Holds no more than a
/// few MB of a tensor, and a VQ head's codebook, in memory. Throws UsageError for an unknown dtype, Error for an expansion
/// that does not exist, what cannot be read or written, and values beyond float16's range.
void write_hf(const ModelSource& source, const std::filesystem::path& out, const HfWriteOptions& options);

}  // namespace vqlm
