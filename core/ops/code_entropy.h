// The VQ head's bookkeeping around its K codes: rows sorted by cluster, the commitment loss, and codes as means.
#pragma once

#include "core/ops/code_map_view.h"

namespace vqlm {

/// clusters (N) overwritten: map.cluster_of_token[targets[n]], or -1 where targets[n] < 0. Counting sort of the rows by
/// cluster, stable: order (N) the row numbers, rows without target last; row_begin (K + 1): cluster k's rows are
/// order[row_begin[k] .. row_begin[k + 1]).
struct SortRowsByCluster {
  static constexpr std::string_view name = "sort_rows_by_cluster";
  Tensor clusters;
  Tensor order;
  Tensor row_begin;
  Tensor targets;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

/// Commitment loss beta / d * |h_n - c_{clusters[n]}|^2: penalty (N) overwritten (0 where clusters[n] < 0); where dh
/// is present it accumulates scale * 2 beta / d * (h_n - c). The codes get no gradient (van den Oord, 1711.00937).
/// dh, h, codebook: A.
struct Commitment {
  static constexpr std::string_view name = "commitment";
  Tensor penalty;
  Tensor dh = {};
  Tensor h;
  Tensor codebook;
  Tensor clusters;
  float beta;
  float scale;

  void check(DType a) const;
  OpCost cost() const;
};

/// Codes from moving averages of their clusters (van den Oord, 1711.00937, appendix A.1): codebook (K, d) f32 row k is
/// overwritten with scale * sums_k / counts_k from sums (K, d) and counts (K); where counts_k is below least_count it
/// stays.
struct CodesFromAverages {
  static constexpr std::string_view name = "codes_from_averages";
  static constexpr float least_count = 1e-30f;  // its reciprocal is far from overflow
  Tensor codebook;
  Tensor sums;
  Tensor counts;
  float scale;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
