#include "core/ops/code_map_view.h"

namespace vqlm {

void check_members(DType a, std::int64_t d, const Tensor& member_codebook, const Tensor& token_bias,
                   const CodeMapView& map) {
  check_dtype(a, {member_codebook});
  check_dtype(DType::f32, {token_bias});
  const std::int64_t vocabulary = map.members.numel();
  VQLM_ASSERT(token_bias.numel() == vocabulary);
  if (are_own_vectors(member_codebook)) {
    VQLM_ASSERT(member_codebook.shape() == Shape({vocabulary, d}));
  } else if (member_codebook) {
    VQLM_ASSERT(member_codebook.rank() == 3 && member_codebook.extent(0) * member_codebook.extent(2) == d);
    VQLM_ASSERT(member_codebook.extent(1) <= 256);
    VQLM_ASSERT(map.member_codes.numel() == vocabulary * member_codebook.extent(0));
  }
}

}  // namespace vqlm
