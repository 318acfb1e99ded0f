// How often what heads for later tokens would draft is what the model says itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/transformer.h"

namespace vqlm {

/// The acceptance rate of head j under teacher forcing. With m(t) the output head's most probable token after position t of a
/// text, and f_j(t) head j's after the same position, both of the text's own tokens up to t: the share of positions t at which
/// f_j(t) = m(t + j), among those where the head has a token to predict. The lower id counts where probabilities are equal.
class DraftAcceptance {
 public:
  /// Whole sequences, so one tensor rank. Both must outlive the object.
  DraftAcceptance(Backend& backend, Transformer& model);

  /// Counts the rows of the model's last evaluate(). targets (F, N): of the heads for later tokens, -1 = none.
  void add(std::span<const std::int32_t> targets);

  /// Of each head: positions with a token to predict, and those at which the draft is accepted.
  std::vector<double>& positions() { return positions_; }
  std::vector<double>& accepted() { return accepted_; }

 private:
  /// The most probable token after each of the hidden states h (N, d).
  std::vector<std::int32_t> choices(Tensor h);

  Backend& backend_;
  Transformer& model_;
  std::int64_t chunk_;  // rows of log-probabilities at a time
  Buffer storage_;      // (chunk, V) f32
  std::vector<float> log_probs_;
  std::vector<double> positions_, accepted_;
};

}  // namespace vqlm
