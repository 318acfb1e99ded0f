// Vector kernels that put members' vectors together from the member codebook (G, Q, width) and spread gradients back.
#pragma once

#include <cstdint>

namespace vqlm::cpu {

/// Sizes of a member codebook.
struct MemberSizes {
  std::int64_t groups;  // G
  std::int64_t codes;   // Q
  std::int64_t width;   // d / G

  std::int64_t vector() const { return groups * width; }
  std::int64_t codebook() const { return groups * codes * width; }
};

/// vectors (count, d): row w is [codebook(g, codes(w, g)) for g in 0..G).
void gather_members(float* vectors, const float* codebook, const std::uint8_t* codes, std::int64_t count,
                    const MemberSizes& sizes);

/// codebook(g, codes(w, g)) += vectors(w, g) for every member w and group g.
void scatter_add_members(float* codebook, const float* vectors, const std::uint8_t* codes, std::int64_t count,
                         const MemberSizes& sizes);

/// scores (count): h . u_w for one row h (d) and the members' vectors, in member order.
void score_members(float* scores, const float* h, const float* codebook, const std::uint8_t* codes,
                   std::int64_t count, const MemberSizes& sizes);

/// tables (rows, G, Q) = h_g . u_{g,q} for `rows` consecutive rows of h (rows, d).
void make_member_tables(float* tables, const float* h, std::int64_t rows, const float* codebook,
                        const MemberSizes& sizes);

/// scores (count): the same as score_members up to rounding, from one row's table (G, Q): G look-ups a member. Zeros where
/// G = 0.
void look_up_members(float* scores, const float* table, const std::uint8_t* codes, std::int64_t count,
                     const MemberSizes& sizes);

}  // namespace vqlm::cpu
