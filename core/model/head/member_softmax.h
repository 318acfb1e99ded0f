// The VQ head's second factor, p(token | its cluster, h), for the n rows of a rank. Where every tensor rank has a part of
// the members (EmbeddingMembers), the group's N rows come together as a dense head's do: each rank scores them with its
// members, a row's statistics are exchanged, and gradients of hidden states are summed back to the ranks that have the rows.
#pragma once

#include "core/model/head/device_code_map.h"
#include "core/ops/member_entropy.h"
#include "core/tensor_parallel.h"

namespace vqlm {

class MemberSoftmax {
 public:
  /// rows: n; width: d. The map must outlive this.
  MemberSoftmax(const TensorParallel& tensor, const DeviceCodeMap& map, std::int64_t rows, std::int64_t width,
                bool trainable);

  /// (n) i32: the clusters of targets (n), -1 where a row has none; the calls below are for these rows. Collective over the
  /// tensor group, as they are, where members have parts.
  Tensor sort(Tensor targets);
  /// nll (n) accumulates -log p(target | cluster, h). vectors, bias: as MemberEntropy's.
  void forward(Tensor nll, Tensor h, Tensor vectors, Tensor bias);
  /// The same, and gradients accumulate as MemberEntropy's do, dh (n, d).
  void forward_backward(Tensor nll, const MemberGradients& gradients, Tensor h, Tensor vectors, Tensor bias);

 private:
  void allocate(std::int64_t width, bool trainable);
  /// Of parts: lse of all rows, and nll of this rank's.
  void combine(Tensor nll, Tensor h_rows, Tensor vectors, Tensor bias);

  const TensorParallel& tensor_;
  const DeviceCodeMap& map_;
  std::int64_t rows_;
  Tensor targets_;  // of the last sort(): (n), or (N) of parts

  Buffer storage_;
  Tensor clusters_of_rows_, order_, row_begin_;  // (n), (n), (K + 1) i32; (N), (N) of parts
  // Of parts:
  Tensor all_targets_;                  // (N) i32
  Tensor h_rows_, dh_rows_, own_dh_;    // (N, d), (N, d), (n, d) A
  Tensor statistics_, all_statistics_;  // (N, 3), (P, N, 3) f32
  Tensor lse_, nll_;                    // (N) f32
};

}  // namespace vqlm
