// Log-probabilities of every token from the VQ head. A row's dot products with all Q sub-codes of a group make a table
// of Q numbers; a token's score is then G look-ups, as in product quantisation search (Jegou et al., PAMI 2011).
#include <algorithm>
#include <cmath>

#include "core/cpu/member_kernels.h"
#include "core/cpu/member_rows.h"
#include "core/cpu/ops.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"

namespace vqlm::cpu {
namespace {

// Rows whose tables are made together: enough for a product, few enough that the tables of all groups stay in cache.
constexpr std::int64_t row_block = 16;

}  // namespace

void member_log_probs(Tensor log_probs, Tensor h, Tensor code_log_probs, Tensor member_codebook,
                      Tensor token_bias, const CodeMapView& map) {
  VQLM_ASSERT(h.rank() == 2 && log_probs.rank() == 2 && code_log_probs.rank() == 2);
  const std::int64_t rows = h.extent(0), d = h.extent(1), vocabulary = log_probs.extent(1);
  const std::int64_t clusters = code_log_probs.extent(1);
  VQLM_ASSERT(log_probs.extent(0) == rows && code_log_probs.extent(0) == rows &&
              token_bias.numel() == vocabulary);
  VQLM_ASSERT(map.member_begin.numel() == clusters + 1 && map.members.numel() == vocabulary);
  if (are_own_vectors(member_codebook)) {
    return own_vector_log_probs(log_probs, h, code_log_probs, member_codebook, token_bias, map);
  }
  MemberSizes sizes{0, 0, 0};
  if (member_codebook) {
    sizes = {member_codebook.extent(0), member_codebook.extent(1), member_codebook.extent(2)};
    VQLM_ASSERT(sizes.vector() == d && map.member_codes.numel() == vocabulary * sizes.groups);
  }
  float* const out = log_probs.f32();
  const float *const codes_log_probs = code_log_probs.f32(), *const bias = token_bias.f32();
  const std::int32_t *const member_begin = map.member_begin.i32(), *const members = map.members.i32();
  const std::uint8_t* const codes = map.member_codes.as<std::uint8_t>();
  const std::int64_t row_table = sizes.groups * sizes.codes;
  const Scratch tables(1, row_block * row_table);
  const Scratch scores(1, std::min(row_block, rows) * vocabulary);  // in member order

  for (std::int64_t begin = 0; begin < rows; begin += row_block) {
    const std::int64_t block = std::min(row_block, rows - begin);
    if (sizes.groups > 0)
      make_member_tables(tables.of_thread(0), h.f32() + begin * d, block, member_codebook.f32(), sizes);
#pragma omp parallel for collapse(2) schedule(dynamic, 16)
    for (std::int64_t r = 0; r < block; ++r) {
      for (std::int64_t k = 0; k < clusters; ++k) {
        const std::int64_t first = member_begin[k], count = member_begin[k + 1] - first;
        float* const s = scores.of_thread(0) + r * vocabulary + first;
        const float* const table = tables.of_thread(0) + r * row_table;
        if (count == 0) continue;
        look_up_members(s, table, codes + first * sizes.groups, count, sizes);
        for (std::int64_t w = 0; w < count; ++w) s[w] += bias[members[first + w]];
        const RowStatistics found = row_statistics(s, nullptr, count);
        const float shift = codes_log_probs[(begin + r) * clusters + k] - found.maximum - std::log(found.sum);
        float* const row = out + (begin + r) * vocabulary;
        for (std::int64_t w = 0; w < count; ++w) row[members[first + w]] = s[w] + shift;
      }
    }
  }
}

}  // namespace vqlm::cpu
