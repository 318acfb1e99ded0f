// A model of the tests as a checkpoint, and what two models say to the same tokens.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "tests/data/temporary_folder.h"
#include "tests/train/tiny_checkpoint.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/models/loaded_model.h"
#include "train/models/replaced_head.h"

namespace vqlm::testing {

/// A tiny model's checkpoint, opened.
class Saved {
 public:
  explicit Saved(const Config& config, float stddev = 0.3f) : model_(config) {
    model_.randomize(11, stddev);
    source_.emplace(save_tiny(model_, folder_.file("run"), {.step = 7, .samples = 14, .tokens = 112}), Verify::yes);
  }
  const CheckpointReader& source() const { return *source_; }
  std::filesystem::path file(const std::string& name) const { return folder_.file(name); }
  const Config& config() const { return model_.config(); }

 private:
  TemporaryFolder folder_;
  TinyModel model_;
  std::optional<CheckpointReader> source_;
};

inline Config config_of(HeadKind head, int groups = 4) {
  Config config = tiny_model_config(head);
  set_groups(config, groups);
  return config;
}

/// (rows, V) log-probabilities after two fixed sequences.
inline std::vector<float> log_probs(const ModelSource& source) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const BatchShape batch{2, 8};
  const LoadedModel loaded = load_model(source, *backend, grid.tensor(), batch);
  const std::int64_t vocab = source.model().vocab_size;
  std::vector<std::int32_t> ids(16);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>((7 * i + 3) % 61);
  std::vector<float> out(16 * static_cast<std::size_t>(vocab));
  loaded.transformer->log_probs(Tensor(out.data(), DType::f32, {16, vocab}), Tensor(ids.data(), DType::i32, {16}));
  return out;
}

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return largest;
}

/// A model whose last norm is scaled, and h with it.
class ScaledHidden : public ReplacedHead {
 public:
  ScaledHidden(const ModelSource& trunk, float scale)
      : ReplacedHead(trunk, trunk.head(), trunk.model().tie_embeddings ? Tied::yes : Tied::no), scale_(scale) {}
  std::optional<CodeMap> code_map() const override { return trunk().code_map(); }
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override {
    std::vector<float> values = trunk().read(name, offset, extent);
    if (name == "model.norm.weight") {
      for (float& value : values) value *= scale_;
    }
    return values;
  }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override {
    return trunk().read(name, offset, extent);
  }
  float scale_;
};

}  // namespace vqlm::testing
