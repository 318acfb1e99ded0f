// Hugging Face folders of the Llama family as models of this program.
#pragma once

#include <filesystem>
#include <memory>

#include "train/checkpoint/model_source.h"

namespace vqlm {

/// Opens a folder of config.json and safetensors: Llama, Mistral without sliding window (both with a dense head without
/// bias), or this program's own form, model_type "vqlm" (docs/convert.md). Headers and the list of tensors are checked at
/// once, values are read when asked for. Throws Error naming what is missing, damaged, left over or not supported.
std::unique_ptr<ModelSource> open_hf_model(const std::filesystem::path& path);

/// A tensor's name in a Hugging Face folder: VQ heads stand where Llama's matrix does, vq_head.X is lm_head.X there.
std::string hf_tensor_name(const std::string& name);

}  // namespace vqlm
