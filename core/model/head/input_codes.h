// The input embedding in two parts (head.input_codes): a token v is fed in as its row of the table plus a vector of its
// cluster,
//   x = e_v + d_{k(v)},   D (K, d) `vq_head.input_codebook`.
// No more can be said with D than without it, since e_v + d_{k(v)} could stand in the table: it makes rows of one cluster
// learn from each other, the rare ones most. The head's own use of the table, members' scores, is e_v alone; D would cancel
// there, being the same for all members.
#pragma once

#include "core/model/head/output_head.h"

namespace vqlm {

class InputCodes {
 public:
  /// Adds D to the open bucket, replicated. Up to context.input_rows rows at a time.
  InputCodes(const HeadContext& context, std::int64_t clusters);

  /// (n, d) A: the vectors of the clusters of tokens (n) i32, valid until the next call. The first block adds them to the
  /// embedding where it adds other blocks' branches to the residual.
  Tensor vectors(Tensor tokens, const CodeMapView& map);
  /// D's gradient accumulates, from that of the last vectors(), dx (n, d) A.
  void backward(Tensor dx);

 private:
  Backend& backend_;
  ParameterStore& parameters_;
  ParameterId codebook_;
  Buffer storage_;
  Tensor clusters_, order_;  // (n) i32
  Tensor row_begin_;         // (K + 1) i32
  Tensor vectors_;           // (n, d) A
};

}  // namespace vqlm
