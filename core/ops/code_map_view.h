// The code map on the device, as the VQ head's ops read it.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// "Member order": tokens sorted by (cluster, token id). A part of a map has M of the V tokens as members, some of each
/// cluster or none; ops that take parts say so (member_part.h).
struct CodeMapView {
  Tensor cluster_of_token;   // (V) i32
  Tensor position_of_token;  // (V) i32: a token's place in member order; -1 outside a part
  Tensor members;            // (V) i32: token ids in member order; (M) of a part
  Tensor member_begin;       // (K + 1) i32: cluster k's members are [member_begin[k], member_begin[k + 1])
  Tensor member_codes;       // (V, G) u8 in member order, each below Q; absent where members have no codes
  Tensor cluster_sizes;      // (K) i32, of a part alone: the members that each whole cluster has, 1 or more

  // The host's numbers; 0 where it does not know.
  std::int64_t largest_cluster = 0;  // its members; bounds a GPU's workspace
  double mean_members = 0;           // of a token's cluster, over the vocabulary: what MemberEntropy costs by
};

/// Members' vectors u_w come in three forms, of width d:
///   (G, Q, d/G) A: sub-codes, u_w = [u_{g, q_g(w)} for g in 0..G) by map.member_codes;
///   (V, d) A: the members' own vectors in member order, row i is u_w of w = map.members[i]; member_codes is not read;
///   absent: u_w = 0.
/// True for the second.
inline bool are_own_vectors(const Tensor& member_codebook) {
  return member_codebook && member_codebook.rank() == 2;
}

/// Asserts the shapes of a map's members, of their biases (V) f32 and of their vectors, whose dtype is `a`.
void check_members(DType a, std::int64_t d, const Tensor& member_codebook, const Tensor& token_bias,
                   const CodeMapView& map);

/// The codes by which members' vectors are put together; absent where they are not.
inline Tensor codes_of(const Tensor& member_codebook, const CodeMapView& map) {
  return member_codebook && !are_own_vectors(member_codebook) ? map.member_codes : Tensor{};
}

}  // namespace vqlm
