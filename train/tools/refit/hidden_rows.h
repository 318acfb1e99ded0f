// Hidden states on their way to ClassSums: projected on the device, so that few numbers cross to the host.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/transformer.h"

namespace vqlm {

/// The dimensions `asked` for as they are used: rounded up to a multiple of max(groups, 1), at most d.
std::int64_t projected_dims(std::int64_t d, int groups, std::int64_t asked);

/// The projection R (d, r), row-major: block-diagonal with a block of (d/G, r/G) for each group, so that group g of a
/// projected row comes from h_g, which group g of a member vector is multiplied with. Columns are orthonormal, drawn by
/// Philox from (seed, "learned_map.projection"); the identity where r = d. G divides d and r.
std::vector<float> projection_matrix(std::int64_t d, std::int64_t r, int groups, std::uint64_t seed);

class HiddenRows {
 public:
  /// Both must outlive the object. dims: as projected_dims() gives them.
  HiddenRows(Backend& backend, const Transformer& model, int groups, std::int64_t dims, std::uint64_t seed);

  /// What the model's head saw last, projected: this rank's rows (n, r) in host memory, until the next call. Blocks.
  std::span<const float> project();

  std::int64_t dims() const { return dims_; }

 private:
  Backend& backend_;
  const Transformer& model_;
  std::int64_t dims_;
  Buffer storage_;
  Tensor projection_;  // (d, r) A
  Tensor rows_;        // (n, r) f32
  std::vector<float> host_;
};

}  // namespace vqlm
