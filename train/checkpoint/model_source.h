// A trained model, wherever it lies: one of our checkpoints, a Hugging Face folder, or another model with its head
// replaced. Everything that reads models (eval, generate, convert, train --init) reads them through this contract.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "core/parameters.h"
#include "core/tensor.h"
#include "train/checkpoint/manifest.h"
#include "train/config/config.h"

namespace vqlm {

/// Where a run stood when it saved a model.
struct SavedRun {
  TrainState state;
  bool has_optimizer = false;  // false for a converted model, which no run can go on from
};

/// Logical tensors are named and shaped as in docs/checkpoints.md (Hugging Face's names for Llama); their values are f32
/// whatever they are stored in. Every Error names the file, and the tensor where there is one.
class ModelSource {
 public:
  struct TensorInfo {
    std::string name;
    Shape shape;
    std::string stored_as;  // "float32", "bfloat16", "float16"
  };

  virtual ~ModelSource() = default;

  /// The folder, for messages.
  virtual const std::filesystem::path& path() const = 0;
  /// What it is, for people: "checkpoint, step 1000", "Hugging Face LlamaForCausalLM".
  virtual std::string description() const = 0;
  /// All sizes filled in, vocab_size included.
  virtual const ModelConfig& model() const = 0;
  virtual const HeadConfig& head() const = 0;
  /// The VQ head's map, or an adaptive one's bands; none for others.
  virtual std::optional<CodeMap> code_map() const = 0;
  /// Every parameter tensor once, in the order of a forward pass; no optimizer state.
  virtual std::vector<TensorInfo> tensors() const = 0;
  /// The box of a tensor at `offset`, `extent` long, row-major. Throws Error where there is no such tensor, or what is
  /// stored is damaged.
  virtual std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const = 0;
  /// The tokenizer's files in path(), as they are named there; none where it has none (data/tokenizer/tokenizer_files.h).
  virtual std::vector<std::filesystem::path> tokenizer_files() const = 0;
  /// The text of a generation_config.json that says which ids begin and end texts, where the model says so and has no
  /// such file among tokenizer_files(); else empty.
  virtual std::string generation_config() const { return ""; }
  /// Which tokenizer the model's ids are of, as shards say it; empty where nothing tells.
  virtual std::string tokenizer_sha256() const = 0;
  /// Tokens of a sample in training; 0 where nothing tells.
  virtual std::int64_t seq_len() const { return 0; }
  /// The configuration of the run that made it, where one of ours did; else config_of_model().
  virtual Config config() const;
  /// None for a model that is no checkpoint.
  virtual std::optional<SavedRun> run() const { return std::nullopt; }
  /// A run of ours trained it, from shards in which nothing but the end of the text before stands before a text; also where
  /// what was read off it, or a head put in place of its own, is no checkpoint.
  virtual bool trained_here() const {
    const std::optional<SavedRun> saved = run();
    return saved && saved->has_optimizer;
  }
};

/// The defaults with the model's sizes, and with the length of its samples where it is known.
Config config_of_model(const ModelSource& source);

/// Fills the store's values but moving averages, which are a run's own, reading no more of each tensor than this rank's
/// slice. Throws Error for a tensor that is missing or has another shape.
void load_parameters(const ModelSource& source, ParameterStore& parameters);

}  // namespace vqlm
