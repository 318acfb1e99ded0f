// A code map in the device's memory, as the VQ head's ops read it: whole, and this rank's part of the members where tensor
// ranks share these by token.
#pragma once

#include <optional>
#include <vector>

#include "core/model/head/code_map.h"
#include "core/ops/code_map_view.h"
#include "core/tensor_parallel.h"

namespace vqlm {

class DeviceCodeMap {
 public:
  /// part: the tokens whose vectors this rank has; absent where it has all.
  DeviceCodeMap(Backend& backend, const CodeMap& map, std::optional<TensorParallel::Part> part);

  const CodeMapView& whole() const { return whole_; }
  /// The part's members; whole() where there is none.
  const CodeMapView& members() const { return part_.members ? part_ : whole_; }
  /// (M) i32: where members()' vectors stand among the rows that this rank has of a table of all tokens.
  const Tensor& table_rows() const { return part_.members ? part_rows_ : whole_.members; }
  bool has_parts() const { return static_cast<bool>(part_.members); }
  /// (V), on the host.
  const std::vector<std::int32_t>& cluster_of_token() const { return cluster_of_token_; }

 private:
  void upload_whole(Backend& backend, const CodeMap& map, const MemberOrder& order);
  void upload_part(Backend& backend, const MemberOrder& order, TensorParallel::Part part);

  Buffer storage_;
  CodeMapView whole_, part_;
  Tensor part_rows_;
  std::vector<std::int32_t> cluster_of_token_;
};

}  // namespace vqlm
