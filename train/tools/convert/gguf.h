// Models as GGUF files, which llama.cpp loads.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "train/checkpoint/model_source.h"

namespace vqlm {

struct GgufOptions {
  std::string dtype = "f32";  // or "f16", "q8_0"; gains are f32 in all three
  bool tokenizer = true;      // without it the file takes and gives ids alone
};

/// Writes `out`, of llama.cpp's architecture "llama", by way of a float32 Hugging Face folder in OUT.partial, which Python's
/// gguf reads (a process of its own, PythonScript). What that says is logged. `check` is called several times a second and
/// may throw to end it all. Throws UsageError where `out` is there; Error for heads that llama.cpp cannot compute (VQ, a
/// token bias that is not zero everywhere), for a tokenizer by which it would give other ids, for a Python without gguf, for
/// values beyond f16's range and for what cannot be written. Nothing is left then.
void write_gguf(const ModelSource& source, const std::filesystem::path& out, const GgufOptions& options,
                const std::function<void()>& check);

}  // namespace vqlm
