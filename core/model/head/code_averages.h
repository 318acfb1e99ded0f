// CodeAverages: the VQ head's codes as moving averages of the hidden states that predict their clusters' tokens, in place
// of a gradient (van den Oord et al., arXiv 1711.00937, appendix A.1). With S_k the sum of h over a step's rows whose
// target lies in cluster k (all ranks, all micro-batches) and n_k their number:
//   M_k <- decay M_k + (1 - decay) S_k,   N_k <- decay N_k + (1 - decay) n_k,   c_k = code_scale(d) M_k / N_k
// M and N are entries of the parameter store, so what sums gradients over ranks sums S and n, what updates and gathers
// parameters does it with M and N, and checkpoints hold them. Every rank then makes the codes from the same numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_config.h"
#include "core/parameters.h"
#include "core/tensor_parallel.h"

namespace vqlm {

class CodeAverages {
 public:
  /// Adds M "vq_head.ema_sums" (K, d) and N "vq_head.ema_counts" (K) to the store's open bucket, which must be a replicated
  /// one. codebook (K, d): UpdateRule::derived. rows: n of a micro-batch on this rank.
  CodeAverages(const TensorParallel& tensor, ParameterStore& parameters, int bucket, ParameterId codebook,
               const EmaLearningConfig& config, std::int64_t rows);

  /// Gives every cluster the count that its share of the training tokens, mass (K), brings in a step, and the sum that
  /// makes its code what it is now: codes move away from where they started within about 1 / (1 - decay) steps.
  void start(const std::vector<double>& mass, std::int64_t step_tokens);
  /// Adds this micro-batch's S and n where gradients stand. h (n, d) A; clusters (n) i32, -1: none.
  void accumulate(Tensor h, Tensor clusters);
  /// M / N (K, d) A as they are now, until the next call: what hidden states commit to. Enqueues one or two small ops.
  Tensor means();
  /// Codes from the averages, after an update that was not skipped.
  void after_update();

 private:
  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  ParameterId codebook_, sums_, counts_;
  float decay_;
  float scale_;
  Buffer storage_;
  Tensor ones_;           // (n, 1) A
  Tensor means_;          // (K, d) f32; absent without a commitment loss
  Tensor rounded_means_;  // (K, d) A where that is not f32
};

/// The factor between a class mean and its code, for h of width d: 1 / sqrt(d). h leaves RMSNorm with a norm of about
/// sqrt(d) at first, so that means as logit vectors (factor 1) would make logits of the size of d.
float code_scale(std::int64_t d);

}  // namespace vqlm
