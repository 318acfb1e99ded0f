// The projected hidden states of a step's rows, on their way to ClassSums.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/transformer.h"
#include "train/codes/class_sums.h"

namespace vqlm {

/// The dimensions `asked` for as they are used: rounded up to a multiple of max(groups, 1), at most d.
std::int64_t projected_dims(std::int64_t d, int groups, std::int64_t asked);

/// The projection R (d, r), row-major: block-diagonal with a block of (d/G, r/G) for each group, so that group g of a
/// projected row comes from h_g, which group g of a member vector is multiplied with. Columns are orthonormal, drawn by
/// Philox from (seed, "learned_map.projection"); the identity where r = d. G divides d and r.
std::vector<float> projection_matrix(std::int64_t d, std::int64_t r, int groups, std::uint64_t seed);

class HiddenRows {
 public:
  /// Of this rank's n rows of each of M micro-batches. Both must outlive the object.
  HiddenRows(Backend& backend, Transformer& model, int groups, std::int64_t dims, std::int64_t micro_batches,
             std::uint64_t seed);

  /// Projects what the model's head saw last; only enqueues.
  void enqueue_projection();
  /// Keeps the rows projected last as those of micro-batch `number`; only enqueues.
  void keep(std::int64_t number);
  /// The kept rows (n, r) of all micro-batches, one after the other, in host memory. Blocks.
  std::span<const float> rows();

  std::int64_t dims() const { return dims_; }

 private:
  Backend& backend_;
  Transformer& model_;
  std::int64_t dims_;
  Buffer storage_;
  Tensor projection_;  // (d, r) A
  Tensor batch_;       // (n, r) f32
  Tensor all_;         // (M, n, r) f32
  std::vector<float> host_;
};

}  // namespace vqlm
