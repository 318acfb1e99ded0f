// DenseHead: a (V, d) matrix, vocabulary-sharded over the tensor group, with the exact distributed softmax.
// Logits are made and used a chunk of rows at a time, so that no N x V array exists. What stands here of d is the width of
// the hidden states that the head is given: the model's, or what a low-rank head (low_rank_head.h) leaves of it.
#pragma once

#include <optional>

#include "core/model/head/output_head.h"

namespace vqlm {

/// Rows of logits of `width` classes that are held at a time, of `rows`: as few equal chunks as the back end's budget allows.
std::int64_t logit_chunk_rows(const Backend& backend, std::int64_t width, std::int64_t rows);

class DenseHead : public OutputHead {
 public:
  /// tied_table: the embedding table's parameter, whose rows are this head's (already sharded over the
  /// vocabulary); else the head adds `lm_head.weight`. Adds `lm_head.bias` where the configuration wants it.
  DenseHead(const HeadContext& context, const DenseHeadConfig& config, std::optional<ParameterId> tied_table)
      : DenseHead(context, config, tied_table, context.model.d_model, 0.02f) {}
  /// Over hidden states of another width; stddev: of a matrix of its own, at the start.
  DenseHead(const HeadContext& context, const DenseHeadConfig& config, std::optional<ParameterId> tied_table,
            std::int64_t width, float stddev);

  HeadCost cost() const override;
  void initialize(const std::vector<std::int64_t>& counts) override;
  void forward(Tensor nll, Tensor h, Tensor targets) override;
  void rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) override;
  void log_probs(Tensor out, Tensor h) override;
  /// Both need the whole product: (V, d) times h.
  std::vector<TokenLogProb> most_probable(Tensor h, std::int64_t count, double mass) override;
  std::int32_t sample(Tensor h, float temperature, const std::function<double()>& uniform) override;

 private:
  void allocate_workspace(bool trainable, LogitChunks chunks);
  /// One pass over the row chunks; with dh_rows (N, d) present, gradients too. all_nll (N) overwritten, and all_penalty (N),
  /// where present.
  void run(Tensor all_nll, Tensor all_penalty, Tensor dh_rows, Tensor h_rows, Tensor all_targets, float scale);
  /// The weight's gradient, and dh (n, d) overwritten, from those of a chunk's logits.
  void run_products(Tensor dh, Tensor h, Tensor dlogits);
  /// log_probs() of h (1, d) in host memory, valid until the next call.
  std::span<const float> host_log_probs(Tensor h);
  Tensor bias() const { return bias_ ? parameters_.operand(*bias_) : Tensor{}; }

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  std::int64_t vocab_size_;
  std::int64_t hidden_width_;  // d
  std::int64_t rows_;          // n
  std::int64_t chunk_rows_;    // rows of logits held at a time
  TensorParallel::Part part_;  // this rank's tokens
  std::int64_t width_;         // columns of its logits: part_.count, padded for the back end
  ParameterId weight_;         // (part_.count, d), padded to width_ rows
  std::optional<ParameterId> bias_;
  bool tied_;
  float z_loss_;
  float softcap_;

  Buffer storage_;
  Tensor logits_;            // (chunk_rows, width_) A
  Tensor statistics_;        // (chunk_rows, 3)
  Tensor all_statistics_;    // (P, chunk_rows, 3)
  Tensor lse_;               // (chunk_rows)
  Tensor all_nll_;           // (N)
  Tensor all_penalty_;       // (N), absent without z_loss
  Tensor h_rows_, dh_rows_;  // (N, d) A, absent at P = 1
  Tensor all_targets_;       // (N) i32, absent at P = 1

  // Generation's, made at its first token.
  Buffer row_storage_;          // (1, V)
  std::vector<float> row_;      // the same on the host
  std::vector<double> scaled_;  // (V): log weights of a sample
  std::vector<double> weights_;
};

}  // namespace vqlm
