// Checkpoints of tiny models.
#pragma once

#include <filesystem>
#include <fstream>

#include "tests/train/tiny_model.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/checkpoint_saver.h"

namespace vqlm::testing {

constexpr const char* tiny_tokenizer = "pieces of a tokenizer, not read by anybody";
constexpr const char* tiny_tokenizer_sha256 = "0123456789abcdef";

/// Saves under `folder`, with a tokenizer.model, and returns the checkpoint's path.
inline std::filesystem::path save_tiny(TinyModel& model, const std::filesystem::path& folder, const TrainState& state,
                                       int keep = 0, std::int64_t keep_every = 0) {
  std::filesystem::create_directories(folder);
  const std::filesystem::path tokenizer = folder / "tokenizer.model";
  std::ofstream(tokenizer) << tiny_tokenizer;
  Config config = model.config();
  config.checkpoint.keep = keep;
  config.checkpoint.keep_every = keep_every;
  remove_unfinished(folder);
  CheckpointSaver saver({.backend = model.backend(),
                         .parameters = model.store(),
                         .optimizer = model.optimizer(),
                         .config = config,
                         .map = model.map(),
                         .tokenizer = {tokenizer},
                         .tokenizer_sha256 = tiny_tokenizer_sha256},
                        model.grid(), folder);
  saver.begin(state);
  saver.finish();
  if (!saver.failure().empty()) throw Error(saver.failure());
  return saver.take_saved().value().path;
}

}  // namespace vqlm::testing
