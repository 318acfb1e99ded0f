// Sizes and choices of a model: what the [model] and [head] sections of a configuration hold.
#pragma once

#include <cstdint>
#include <string>

namespace vqlm {

/// A Llama-style decoder.
struct ModelConfig {
  std::int64_t vocab_size = 0;  // from the shards
  std::int64_t d_model = 256;
  int n_layers = 4;
  int n_heads = 4;
  int n_kv_heads = 0;     // 0: n_heads
  std::int64_t d_ff = 0;  // 0: 8/3 d_model, rounded up to a multiple of 64
  float rope_theta = 10000.0f;
  float norm_eps = 1e-5f;
  bool tie_embeddings = false;  // dense head only: the head's matrix is the embedding table

  int head_dim() const { return static_cast<int>(d_model / n_heads); }
};

enum class HeadKind { dense, vq };
enum class CodebookLearning { gradient, commitment };

struct HeadConfig {
  HeadKind kind = HeadKind::vq;
  bool bias = true;             // token bias, started at log unigram counts
  std::int64_t clusters = 128;  // K
  int groups = 32;              // G; 0 = the published VQ-Logits method
  int codes = 128;              // Q, at most 256
  std::string map = "corpus";   // "random", "frequency", "corpus", or the path of a map file
  CodebookLearning learning = CodebookLearning::gradient;
  float commitment = 0.25f;  // beta; read where learning is commitment
};

}  // namespace vqlm
