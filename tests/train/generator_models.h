// A tiny model for generation beside the same one for full forward passes.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "tests/train/bodies.h"
#include "tests/train/tiny_model.h"
#include "train/tools/generate/generator.h"

namespace vqlm::testing {

using Tokens = std::vector<std::int32_t>;

struct GeneratorHead {
  const char* name;
  HeadKind kind;
  /// Of the VQ head: members by the embedding, their means in the codes, and input codes. Of low rank: tied.
  bool embedding_members = false;
  const char* body = "llama";
  float spread = 0.4f;  // of the parameters; enough that the model does not repeat one token
  int future = 0;       // heads for later tokens
};

/// A tiny model for generation and the same one for full forward passes.
class Models {
 public:
  explicit Models(const GeneratorHead& head, std::int64_t sequences = 1, std::int64_t chunk = 8,
                  std::int64_t context = 24, float spread = 0.4f)
      : full_(config(head)) {
    full_.randomize(11, spread);
    model_ = std::make_unique<Transformer>(full_.backend(), full_.grid().tensor(),
                                           Transformer::Options{.model = full_.config().model,
                                                                .head = full_.config().head,
                                                                .batch = {sequences, chunk},
                                                                .purpose = Purpose::generation,
                                                                .context = context},
                                           full_.map());
    full_.backend().copy(model_->parameters().flat_values(),
                         full_.store().flat_values().range(0, model_->parameters().flat_size()));
  }

  Transformer& model() { return *model_; }
  TinyModel& whole() { return full_; }
  Backend& backend() { return full_.backend(); }
  static constexpr std::int64_t vocabulary = 61;
  static constexpr std::int64_t longest = 32;  // of full()

  Generator generator(const Generator::Options& options) { return Generator(backend(), *model_, vocabulary, options); }

  /// log p of every token after `tokens`, by a full forward pass (what follows is causally unseen).
  std::vector<float> full(Tokens tokens) {
    const std::size_t last = tokens.size() - 1;
    tokens.resize(longest, 0);
    std::vector<float> out(static_cast<std::size_t>(longest * vocabulary));
    full_.model().log_probs(Tensor(out.data(), DType::f32, {longest, vocabulary}),
                            Tensor(tokens.data(), DType::i32, {longest}));
    const auto row = out.begin() + static_cast<std::ptrdiff_t>(last * vocabulary);
    return {row, row + vocabulary};
  }

  /// The hidden state after `tokens`, by the cache.
  Tensor hidden(Tokens tokens) {
    const auto length = static_cast<std::int64_t>(tokens.size());
    return model_->advance(Tensor(tokens.data(), DType::i32, {1, length}), 0);
  }

 private:
  static Config config(const GeneratorHead& head) {
    Config config = tiny_model_config(head.kind);
    config.model.tie_embeddings = head.kind == HeadKind::low_rank && head.embedding_members;
    if (head.kind == HeadKind::vq && head.embedding_members) {
      testing::vq(config).members = EmbeddingMembersConfig{};
      testing::vq(config).input_codes = true;
    }
    set_future(config, head.future);
    config.model.n_layers = 3;
    config.model = with_body(config.model, head.body);
    config.optim.input_tables_update = TableUpdate::dense;  // one order of parameters in training and generation
    config.train.micro_batch = 1;
    config.data.seq_len = longest;
    return config;
  }

  TinyModel full_;
  std::unique_ptr<Transformer> model_;
};

inline Tokens prompt_of(std::size_t length, std::uint64_t seed) {
  Tokens tokens;
  for (std::size_t i = 0; i < length; ++i) {
    tokens.push_back(static_cast<std::int32_t>(Philox(seed, "prompt").below(i, Models::vocabulary)));
  }
  return tokens;
}

inline SamplingOptions greedy() {
  SamplingOptions sampling;
  sampling.temperature = 0;
  return sampling;
}

}  // namespace vqlm::testing
