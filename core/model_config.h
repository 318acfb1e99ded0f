// Sizes and choices of a model: what the [model] and [head] sections of a configuration hold.
#pragma once

#include <cstdint>
#include <string>

namespace vqlm {

/// How rotary frequencies are changed for contexts longer than those of pretraining; formulas in core/model/rope.h.
struct RopeScaling {
  enum class Kind { none, linear, llama3 };
  Kind kind = Kind::none;
  float factor = 1;  // how many times longer contexts become; at least 1
  // llama3 only:
  float low_freq_factor = 1;   // pairs that turn less often than this over the original positions slow down by factor
  float high_freq_factor = 4;  // pairs that turn more often than this stay as they are
  std::int64_t original_positions = 8192;  // longest context of pretraining
};

/// A Llama-style decoder.
struct ModelConfig {
  std::int64_t vocab_size = 0;  // from the shards
  std::int64_t d_model = 256;
  int n_layers = 4;
  int n_heads = 4;
  int n_kv_heads = 0;     // 0: n_heads
  std::int64_t d_ff = 0;  // 0: 8/3 d_model, rounded up to a multiple of 64
  float rope_theta = 10000.0f;
  RopeScaling rope_scaling = {};
  float norm_eps = 1e-5f;
  bool tie_embeddings = false;  // dense head only: the head's matrix is the embedding table

  int head_dim() const { return static_cast<int>(d_model / n_heads); }
};

enum class HeadKind { dense, vq };
enum class CodebookLearning { gradient, commitment, ema };
/// What a VQ head scores the members of a cluster with.
enum class MemberVectors { codes, embedding };

struct HeadConfig {
  HeadKind kind = HeadKind::vq;
  bool bias = true;                              // token bias, started at log unigram counts
  std::int64_t clusters = 128;                   // K
  int groups = 32;                               // G; 0 = the published VQ-Logits method
  int codes = 128;                               // Q, at most 256
  MemberVectors members = MemberVectors::codes;  // embedding: rows of the input embedding; then G = 0 and no codes
  bool member_mean = false;                      // a cluster's vector is its code plus the mean of these vectors
  bool input_codes = false;                      // the input embedding is a token's row plus a vector of its cluster
  std::int64_t own_tokens = 0;                   // the most frequent tokens that have clusters of their own, of the K
  std::string map = "corpus";  // "random", "contiguous", "frequency", "corpus", or the path of a map file
  CodebookLearning learning = CodebookLearning::gradient;
  float commitment = 0.25f;  // beta; read where learning is commitment or ema
  float ema_decay = 0.99f;   // of the clusters' moving averages, a step; read where learning is ema
};

}  // namespace vqlm
