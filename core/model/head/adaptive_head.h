// AdaptiveHead: adaptive softmax (Grave et al., arXiv 1609.04309), exact. Tokens lie in bands by frequency
// (core/adaptive_bands.h). With a(v) the class of token v, a band's class standing for all of its members,
//   p(v|h) = softmax(W h + b)_{a(v)}                                                for the head words,
//   p(v|h) = softmax(W h + b)_{band i} * softmax(W_i A_i h + b_i)_v                 for the members of tail band i,
// W (C + bands, d), A_i (w_i, d), W_i (V_i, w_i). Every row goes through the first softmax; through a band's, only the rows whose
// target is in it. How many these are is known on the host alone, so that a call waits for its targets and cannot be recorded
// in a graph.
// The parameters are replicated over the whole grid; every rank works on its own n rows without any collective.
#pragma once

#include <vector>

#include "core/model/head/band_map.h"
#include "core/model/head/band_softmax.h"
#include "core/model/head/output_head.h"

namespace vqlm {

class AdaptiveHead : public OutputHead {
 public:
  /// The map must have the configuration's bands, of the sizes that it says. Adds `lm_head.weight`, `lm_head.bias`, and for each tail
  /// band `lm_head.tails.I.weight`, `.projection.weight` and `.bias`, I from 0, to the replicated bucket.
  AdaptiveHead(const HeadContext& context, const AdaptiveHeadConfig& config, const CodeMap& map);

  HeadCost cost() const override;
  void initialize(const std::vector<std::int64_t>& counts) override;
  /// Blocks until the targets are known, as rows_forward_backward() does.
  void forward(Tensor nll, Tensor h, Tensor targets) override;
  void rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) override;
  /// Computes all bands; so do the two below. Blocks.
  void log_probs(Tensor out, Tensor h) override;
  std::vector<TokenLogProb> most_probable(Tensor h, std::int64_t count, double mass) override;
  std::int32_t sample(Tensor h, float temperature, const std::function<double()>& uniform) override;

 private:
  void add_softmaxes(const HeadContext& context, const AdaptiveHeadConfig& config);
  void allocate_workspace(bool trainable);
  /// Sorts the rows (n) by their targets' bands: head_classes_, and for each tail band rows_ and classes_ from band_begin_ on.
  void sort_rows(Tensor targets);
  /// Without a device: as many rows for each band as Zipf's law has.
  void expect_rows(std::vector<std::int32_t>& targets) const;
  /// nll (n) overwritten, and dh (n, d) with the parameters' gradients where it is present.
  void run(Tensor nll, Tensor dh, Tensor h, Tensor targets, float scale);
  void run_tail(std::size_t band, Tensor nll, Tensor dh, Tensor h, float scale);
  /// out (rows, V) in host memory.
  void host_log_probs(float* out, Tensor h);
  std::int64_t head_words() const { return bands_.front().tokens; }

  Backend& backend_;
  std::int64_t vocab_size_, d_model_, rows_;
  std::vector<AdaptiveBand> bands_;
  MemberOrder order_;                         // tokens by band
  std::vector<std::int32_t> band_of_token_;   // (V)
  std::vector<std::int32_t> class_of_token_;  // (V), in its band
  std::vector<BandSoftmax> softmaxes_;        // one a band

  Buffer storage_;
  BandScratch scratch_;
  Tensor tail_h_, tail_dh_;                        // (R, d) A: rows of a chunk of a band; the second in training
  Tensor tail_nll_;                                // (R)
  Tensor head_classes_, rows_of_tails_, classes_;  // (n) i32
  std::vector<std::int64_t> band_begin_;           // (bands + 1): of rows_of_tails_ and classes_; the first two are 0
  std::vector<std::int32_t> host_targets_;

  // Of full log-probabilities, made at the first.
  Buffer row_storage_;
  std::int64_t log_prob_rows_ = 0;  // at a time
  std::vector<float> head_log_probs_, band_log_probs_;
  std::vector<float> row_;  // (V)
  std::vector<double> scaled_, weights_;
};

}  // namespace vqlm
