// Checkpoints of tiny models.
#pragma once

#include <filesystem>
#include <fstream>

#include "tests/train/tiny_model.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace vqlm::testing {

constexpr const char* tiny_tokenizer = "pieces of a tokenizer, not read by anybody";
constexpr const char* tiny_tokenizer_sha256 = "0123456789abcdef";

/// Saves under `folder`, with a tokenizer.model, and returns the checkpoint's path.
inline std::filesystem::path save_tiny(TinyModel& model, const std::filesystem::path& folder,
                                       const TrainState& state, int keep = 0) {
  std::filesystem::create_directories(folder);
  const std::filesystem::path tokenizer = folder / "tokenizer.model";
  std::ofstream(tokenizer) << tiny_tokenizer;
  const CheckpointContents contents{.backend = model.backend(),
                                    .parameters = model.store(),
                                    .optimizer = model.optimizer(),
                                    .config = model.config(),
                                    .map = model.map(),
                                    .tokenizer = {tokenizer},
                                    .tokenizer_sha256 = tiny_tokenizer_sha256,
                                    .state = state};
  return save_checkpoint(folder, model.grid(), contents, keep);
}

}  // namespace vqlm::testing
