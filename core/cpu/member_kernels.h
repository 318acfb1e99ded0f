// Vector kernels that put members' vectors together from the member codebook (G, Q, width) and spread gradients back.
#pragma once

#include <cstdint>

namespace vqlm::cpu {

/// Floats from one group of a row's table to the next, whatever Q is: a distance that the compiler knows makes look-ups
/// cheaper (0.36 against 0.19 ns), and entries that are not there are never touched.
constexpr std::int64_t table_stride = 256;

/// Rows whose tables stand together in an interleaved one: a look-up is then one vector for all of them.
constexpr std::int64_t table_rows = 16;

/// Sizes of a member codebook.
struct MemberSizes {
  std::int64_t groups;  // G
  std::int64_t codes;   // Q
  std::int64_t width;   // d / G

  std::int64_t vector() const { return groups * width; }
  std::int64_t codebook() const { return groups * codes * width; }
  /// Floats of one row's table.
  std::int64_t table() const { return groups * table_stride; }
  /// Floats of table_rows rows' tables side by side.
  std::int64_t interleaved_table() const { return groups * codes * table_rows; }
};

/// vectors (count, d): row w is [codebook(g, codes(w, g)) for g in 0..G).
void gather_members(float* vectors, const float* codebook, const std::uint8_t* codes, std::int64_t count,
                    const MemberSizes& sizes);

/// codebook(g, codes(w, g)) += vectors(w, g) for every member w and group g.
void scatter_add_members(float* codebook, const float* vectors, const std::uint8_t* codes, std::int64_t count,
                         const MemberSizes& sizes);

/// scores (count): h . u_w for one row h (d) and the members' vectors, in member order.
void score_members(float* scores, const float* h, const float* codebook, const std::uint8_t* codes, std::int64_t count,
                   const MemberSizes& sizes);

/// tables (rows, G, table_stride), the first Q of each: h_g . u_{g,q} for `rows` consecutive rows of h (rows, d).
void make_member_tables(float* tables, const float* h, std::int64_t rows, const float* codebook,
                        const MemberSizes& sizes);

/// scores (count): the same as score_members up to rounding, from one row's table: G look-ups a member. Zeros where G = 0.
void look_up_members(float* scores, const float* table, const std::uint8_t* codes, std::int64_t count,
                     const MemberSizes& sizes);

/// tables (G, Q, table_rows): h_g . u_{g,q} of 1 to table_rows consecutive rows of h (rows, d); zeros for rows that are not
/// there.
void make_interleaved_tables(float* tables, const float* h, std::int64_t rows, const float* codebook,
                             const MemberSizes& sizes);

/// scores (rows, stride)[:, 0 .. count): what look_up_members gives up to rounding, for the first `rows` rows of interleaved
/// tables; G >= 1.
void look_up_member_rows(float* scores, std::int64_t stride, std::int64_t rows, const float* tables,
                         const std::uint8_t* codes, std::int64_t count, const MemberSizes& sizes);

}  // namespace vqlm::cpu
