// Sizes and choices of a model: what the [model] and [head] sections of a configuration hold.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

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

/// RMSNorm of queries and keys in front of the rotation: none, over each head's numbers (Qwen3, Gemma 3), or over the whole
/// width of all query heads and of all key heads (OLMo 2).
enum class QkNorm { none, head, width };

/// Where a block normalises: the stream in front of each branch (Llama), what a branch adds to it (OLMo 2), or both (Gemma 3).
enum class NormPlacement { pre, post, both };

/// The gate of the feed-forward layer: SiLU, or GELU in its tanh form.
enum class Activation { swiglu, geglu };

/// A table at the input, of a row of d_model numbers for each value of a hash of the last `order` tokens
/// (core/model/ngram_tables.h).
struct NgramTable {
  int order = 2;
  std::int64_t rows = 0;
  bool operator==(const NgramTable&) const = default;
};

/// A Llama-style decoder, and what its descendants change.
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
  bool tie_embeddings = false;  // not with a VQ head: the embedding is made of the head's matrix
  int head_width = 0;           // of an attention head; 0: d_model / n_heads
  bool attention_bias = false;  // of the query, key and value projections, as in Qwen2; the output projection has none
  QkNorm qk_norm = QkNorm::none;
  NormPlacement norm_placement = NormPlacement::pre;
  Activation activation = Activation::swiglu;
  bool zero_init_outputs = false;  // branches start at zero
  int nope_every = 0;              // every n-th layer turns no positions (SmolLM 3: 4); 0: none
  float embedding_scale = 1;       // of the embedding at the input (Gemma: sqrt(d))
  float attention_scale = 0;    // scores are divided by its root (Gemma's query_pre_attn_scalar); 0: the head's width
  std::int64_t window = 0;      // positions that a row sees, itself among them; 0: all before it
  int window_pattern = 0;       // every n-th layer sees all (Gemma 3: 6); 0: none does
  float window_rope_theta = 0;  // rotary base of layers with a window, which no rope_scaling changes; 0: as of all

  std::vector<NgramTable> ngram_tables = {};  // added to the embedding; none in any class of others

  std::int32_t document_end = -1;  // id of the token behind which attention starts anew; -1: none

  /// Standard deviation of output projections at the start. Residual branches start smaller by sqrt(2 layers), as in GPT-2, so
  /// that the stream's variance does not grow, or at zero.
  float output_stddev() const {
    return zero_init_outputs ? 0.0f : 0.02f / std::sqrt(2.0f * static_cast<float>(n_layers));
  }
  /// Layers count from 0; the n-th of a pattern is the last of each n.
  bool rotates(int layer) const { return nope_every == 0 || (layer + 1) % nope_every != 0; }
  std::int64_t window_of(int layer) const {
    return window_pattern != 0 && (layer + 1) % window_pattern == 0 ? 0 : window;
  }
  bool rotates_locally(int layer) const { return window_rope_theta > 0 && window_of(layer) > 0; }

  int head_dim() const { return head_width > 0 ? head_width : static_cast<int>(d_model / n_heads); }
};

/// What backward computes again in place of keeping it: nothing; what costs little, the norms' and SwiGLU's outputs; or all
/// of a block but its input.
enum class Recompute { none, cheap, block };

/// In the order of the alternatives of HeadConfig, and of VqHeadConfig's members and learning.
enum class HeadKind { dense, vq, low_rank, adaptive };
enum class MemberVectors { embedding, codes, none };
enum class CodebookLearning { gradient, commitment, ema };

/// Heads beside the output head for the tokens behind the next one (core/model/head/future_heads.h).
struct FutureHeadsConfig {
  int heads = 0;        // F
  float weight = 0.3f;  // of the mean of their losses, beside the output head's

  bool operator==(const FutureHeadsConfig&) const = default;
};

struct DenseHeadConfig {
  bool bias = true;   // token bias, started at log unigram counts
  float z_loss = 0;   // weight of the squared log of the softmax's sum, beside the loss
  float softcap = 0;  // c: logits x become c tanh(x / c), as in Gemma 2; 0: they stay as they are
  FutureHeadsConfig future = {};
};

/// A dense head whose matrix is a product U A, U (V, r), A (r, d); with tie_embeddings that is the embedding table, too.
struct LowRankHeadConfig {
  bool bias = true;
  float z_loss = 0;
  std::int64_t rank = 64;  // r, at most d_model
  FutureHeadsConfig future = {};
};

/// An adaptive softmax (Grave et al., arXiv 1609.04309): the most frequent tokens and one class a tail band at full width, the
/// bands' members behind projections.
struct AdaptiveHeadConfig {
  bool bias = true;
  std::vector<std::int64_t> cutoffs = {};  // ranks that tail bands begin at, rising; empty: V / 8 and V / 2
  int tail_ratio = 4;                      // tail band i, from 1 on, is d / tail_ratio^i wide, at least 1
  FutureHeadsConfig future = {};

  std::int64_t bands() const { return cutoffs.empty() ? 3 : static_cast<std::int64_t>(cutoffs.size()) + 1; }
};

/// A cluster's members are scored with their rows of the input embedding.
struct EmbeddingMembersConfig {
  bool mean = true;  // a cluster's vector is its code plus the mean of its members' rows
};

/// A cluster's members are scored with vectors put together from a shared codebook (G, Q, d / G).
struct CodeMembersConfig {
  int groups = 32;  // G, above 0
  int codes = 128;  // Q, at most 256
};

/// A cluster's members differ in their token bias alone: the published VQ-Logits method.
struct NoMembersConfig {};

/// How the clusters' codes learn: by the gradient of the cross entropy,
struct GradientLearningConfig {};
/// by it and a commitment loss that draws hidden states to their code,
struct CommitmentLearningConfig {
  float commitment = 0.25f;  // beta
};
/// or as moving averages of the hidden states that ask for them.
struct EmaLearningConfig {
  float commitment = 0.25f;
  float ema_decay = 0.99f;  // a step
};

struct VqHeadConfig {
  bool bias = true;
  std::int64_t clusters = 128;  // K
  std::variant<EmbeddingMembersConfig, CodeMembersConfig, NoMembersConfig> members = {};
  bool input_codes = true;      // the input embedding is a token's row plus a vector of its cluster
  std::int64_t own_tokens = 0;  // the most frequent tokens that have clusters of their own, of the K
  std::string map = "corpus";   // "random", "contiguous", "frequency", "corpus", or the path of a map file
  std::variant<GradientLearningConfig, CommitmentLearningConfig, EmaLearningConfig> learning = {};
  FutureHeadsConfig future = {};

  bool by_embedding() const { return std::holds_alternative<EmbeddingMembersConfig>(members); }
  bool member_mean() const {
    const auto* rows = std::get_if<EmbeddingMembersConfig>(&members);
    return rows != nullptr && rows->mean;
  }
  /// G and Q; 0 for members without codes.
  int groups() const {
    const auto* by_codes = std::get_if<CodeMembersConfig>(&members);
    return by_codes != nullptr ? by_codes->groups : 0;
  }
  int codes() const {
    const auto* by_codes = std::get_if<CodeMembersConfig>(&members);
    return by_codes != nullptr ? by_codes->codes : 0;
  }
  bool averages() const { return std::holds_alternative<EmaLearningConfig>(learning); }
  /// beta; 0 without a commitment loss.
  float commitment() const {
    if (const auto* loss = std::get_if<CommitmentLearningConfig>(&learning)) return loss->commitment;
    const auto* ema = std::get_if<EmaLearningConfig>(&learning);
    return ema != nullptr ? ema->commitment : 0;
  }
};

/// A head of clusters K and product codes, G groups of Q (0: none), without more.
inline VqHeadConfig code_head(std::int64_t clusters, int groups, int codes) {
  VqHeadConfig head{.clusters = clusters, .members = NoMembersConfig{}, .input_codes = false};
  if (groups > 0) head.members = CodeMembersConfig{.groups = groups, .codes = codes};
  return head;
}

using HeadConfig = std::variant<DenseHeadConfig, VqHeadConfig, LowRankHeadConfig, AdaptiveHeadConfig>;

inline HeadKind kind_of(const HeadConfig& head) {
  return static_cast<HeadKind>(head.index());
}
/// Null for heads of other kinds.
inline const VqHeadConfig* vq_of(const HeadConfig& head) {
  return std::get_if<VqHeadConfig>(&head);
}
/// 0 where there is none.
inline float softcap_of(const HeadConfig& head) {
  const auto* dense = std::get_if<DenseHeadConfig>(&head);
  return dense != nullptr ? dense->softcap : 0;
}
inline const LowRankHeadConfig* low_rank_of(const HeadConfig& head) {
  return std::get_if<LowRankHeadConfig>(&head);
}
inline const AdaptiveHeadConfig* adaptive_of(const HeadConfig& head) {
  return std::get_if<AdaptiveHeadConfig>(&head);
}
/// The sizes of a head's code map: a VQ head's, or an adaptive one's, whose clusters are its bands.
struct MapSizes {
  std::int64_t clusters;
  int groups = 0;
  int codes = 0;
};
/// None for heads without a map.
inline std::optional<MapSizes> map_sizes(const HeadConfig& head) {
  if (const auto* vq = vq_of(head)) return MapSizes{vq->clusters, vq->groups(), vq->codes()};
  if (const auto* adaptive = adaptive_of(head)) return MapSizes{adaptive->bands()};
  return std::nullopt;
}
inline bool has_bias(const HeadConfig& head) {
  return std::visit([](const auto& kind) { return kind.bias; }, head);
}
inline const FutureHeadsConfig& future_of(const HeadConfig& head) {
  return std::visit([](const auto& kind) -> const FutureHeadsConfig& { return kind.future; }, head);
}
/// The same head without heads for later tokens.
inline HeadConfig without_future(HeadConfig head) {
  std::visit([](auto& kind) { kind.future.heads = 0; }, head);
  return head;
}
/// 0 without one, as for a VQ head.
inline float z_loss_of(const HeadConfig& head) {
  if (const auto* dense = std::get_if<DenseHeadConfig>(&head)) return dense->z_loss;
  const LowRankHeadConfig* const low_rank = low_rank_of(head);
  return low_rank != nullptr ? low_rank->z_loss : 0;
}

}  // namespace vqlm
