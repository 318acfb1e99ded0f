// Models in a line, for people: what reports, plans and benchmarks call them.
#pragma once

#include <string>

#include "train/config/config.h"

namespace vqlm {

/// "dense", "dense tied", "low_rank r=64", "low_rank r=64 tied", "adaptive at 512 2048 ratio 4", "vq K=128 G=32 Q=128",
/// "vq K=64 E mean input codes" (members: rows of the embedding),
/// and " no bias" behind those without.
std::string head_text(const ModelConfig& model, const HeadConfig& head);
/// The same in words.
std::string head_sentence(const HeadConfig& head);

/// ", head_dim 32, qk_norm head": what a body has that Llama's has not; empty where nothing.
std::string body_text(const ModelConfig& model);
/// "d 768, 12 layers, 12 heads (12 kv), d_ff 2048, vocabulary 50257, T 1024, head dense".
std::string model_text(const Config& config);

}  // namespace vqlm
