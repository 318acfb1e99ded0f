#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/member_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <algorithm>
#include <bit>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/member_kernels.h"
#include "core/cpu/sgemm.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// segment(vector offset, codebook offset) for each group of each member, in order.
template <class Segment>
HWY_INLINE void for_segments(const std::uint8_t* codes, std::int64_t count, std::int64_t groups, std::int64_t table,
                             std::int64_t width, const Segment& segment) {
  std::int64_t at = 0;
  for (std::int64_t w = 0; w < count; ++w, codes += groups) {
    for (std::int64_t g = 0; g < groups; ++g, at += width) segment(at, g * table + codes[g] * width);
  }
}

/// Calls body(tag) with the widest vector that divides `width`, so that no segment has a tail.
template <class Body>
HWY_INLINE void with_dividing_tag(std::int64_t width, const Body& body) {
  if (width % 16 == 0) {
    body(hn::CappedTag<float, 16>());
  } else if (width % 8 == 0) {
    body(hn::CappedTag<float, 8>());
  } else if (width % 4 == 0) {
    body(hn::CappedTag<float, 4>());
  } else {
    body(hn::CappedTag<float, 1>());
  }
}

void gather(float* vectors, const float* codebook, const std::uint8_t* codes, std::int64_t count, std::int64_t groups,
            std::int64_t table, std::int64_t width) {
  with_dividing_tag(width, [&](auto d) HWY_ATTR {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    for_segments(codes, count, groups, table, width, [&](std::int64_t at, std::int64_t from) HWY_ATTR {
      for (std::int64_t i = 0; i < width; i += lanes) {
        hn::StoreU(hn::LoadU(d, codebook + from + i), d, vectors + at + i);
      }
    });
  });
}

void scatter_add(float* codebook, const float* vectors, const std::uint8_t* codes, std::int64_t count,
                 std::int64_t groups, std::int64_t table, std::int64_t width) {
  with_dividing_tag(width, [&](auto d) HWY_ATTR {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    for_segments(codes, count, groups, table, width, [&](std::int64_t at, std::int64_t to) HWY_ATTR {
      for (std::int64_t i = 0; i < width; i += lanes) {
        hn::StoreU(hn::Add(hn::LoadU(d, codebook + to + i), hn::LoadU(d, vectors + at + i)), d, codebook + to + i);
      }
    });
  });
}

/// Members of which score() makes the products at once: as many independent sums hide the latency of a multiply-add.
constexpr int members_at_once = 4;

/// The dot products of h with `members` members' vectors.
template <int members, class D>
HWY_INLINE void score_some(D d, float* scores, const float* h, const float* codebook, const std::uint8_t* codes,
                           std::int64_t groups, std::int64_t table, std::int64_t width) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (std::int64_t g = 0; g < groups; ++g, h += width, codebook += table) {
    const auto at = [&](int w) { return codebook + codes[w * groups + g] * width; };
    const float *const u0 = at(0), *const u1 = at(members > 1 ? 1 : 0), *const u2 = at(members > 1 ? 2 : 0),
                       *const u3 = at(members > 1 ? 3 : 0);
    for (std::int64_t i = 0; i < width; i += lanes) {
      const auto x = hn::LoadU(d, h + i);
      s0 = hn::MulAdd(x, hn::LoadU(d, u0 + i), s0);
      if constexpr (members > 1) {
        s1 = hn::MulAdd(x, hn::LoadU(d, u1 + i), s1);
        s2 = hn::MulAdd(x, hn::LoadU(d, u2 + i), s2);
        s3 = hn::MulAdd(x, hn::LoadU(d, u3 + i), s3);
      }
    }
  }
  scores[0] = hn::GetLane(hn::SumOfLanes(d, s0));
  if constexpr (members > 1) {
    scores[1] = hn::GetLane(hn::SumOfLanes(d, s1));
    scores[2] = hn::GetLane(hn::SumOfLanes(d, s2));
    scores[3] = hn::GetLane(hn::SumOfLanes(d, s3));
  }
}

void score(float* scores, const float* h, const float* codebook, const std::uint8_t* codes, std::int64_t count,
           std::int64_t groups, std::int64_t table, std::int64_t width) {
  with_dividing_tag(width, [&](auto d) HWY_ATTR {
    std::int64_t w = 0;
    for (; w + members_at_once <= count; w += members_at_once) {
      score_some<members_at_once>(d, scores + w, h, codebook, codes + w * groups, groups, table, width);
    }
    for (; w < count; ++w) score_some<1>(d, scores + w, h, codebook, codes + w * groups, groups, table, width);
  });
}

/// The sum of one row's table entries at a member's codes; table (G, table_stride). Four sums hide the latency of addition.
HWY_INLINE float look_up_member(const float* table, const std::uint8_t* codes, std::int64_t groups) {
  float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  std::int64_t g = 0;
  for (; g + 8 <= groups; g += 8, table += 8 * table_stride) {
    // Eight codes come in one load: with a load for each, the loads are the limit.
    std::uint64_t eight;
    hwy::CopyBytes<sizeof eight>(codes + g, &eight);
    s0 += table[eight & 255];
    s1 += table[table_stride + static_cast<std::int64_t>(eight >> 8 & 255)];
    s2 += table[2 * table_stride + static_cast<std::int64_t>(eight >> 16 & 255)];
    s3 += table[3 * table_stride + static_cast<std::int64_t>(eight >> 24 & 255)];
    s0 += table[4 * table_stride + static_cast<std::int64_t>(eight >> 32 & 255)];
    s1 += table[5 * table_stride + static_cast<std::int64_t>(eight >> 40 & 255)];
    s2 += table[6 * table_stride + static_cast<std::int64_t>(eight >> 48 & 255)];
    s3 += table[7 * table_stride + static_cast<std::int64_t>(eight >> 56)];
  }
  for (; g < groups; ++g, table += table_stride) s0 += table[codes[g]];
  return (s0 + s1) + (s2 + s3);
}

void look_up(float* scores, const float* table, const std::uint8_t* codes, std::int64_t count, std::int64_t groups) {
  for (std::int64_t w = 0; w < count; ++w) scores[w] = look_up_member(table, codes + w * groups, groups);
}

/// The sums of `members` members' table entries for `table_rows` rows; tables (G, Q, table_rows).
template <int members, class D>
HWY_INLINE void look_up_rows_of_some(D d, float* sums, const float* tables, const std::uint8_t* codes,
                                     std::int64_t groups, std::int64_t table) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t r = 0; r < table_rows; r += lanes) {
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
    const float* entries = tables + r;
    for (std::int64_t g = 0; g < groups; ++g, entries += table) {
      const auto at = [&](int w)
                          HWY_ATTR { return hn::LoadU(d, entries + std::int64_t{codes[w * groups + g]} * table_rows); };
      s0 = hn::Add(s0, at(0));
      if constexpr (members > 1) {
        s1 = hn::Add(s1, at(1));
        s2 = hn::Add(s2, at(2));
        s3 = hn::Add(s3, at(3));
      }
    }
    hn::StoreU(s0, d, sums + r);
    if constexpr (members > 1) {
      hn::StoreU(s1, d, sums + table_rows + r);
      hn::StoreU(s2, d, sums + 2 * table_rows + r);
      hn::StoreU(s3, d, sums + 3 * table_rows + r);
    }
  }
}

void look_up_rows(float* scores, std::int64_t stride, std::int64_t rows, const float* tables, const std::uint8_t* codes,
                  std::int64_t count, std::int64_t groups, std::int64_t table) {
  const hn::CappedTag<float, table_rows> d;
  constexpr std::int64_t tile = 64;  // members whose sums are turned around together
  float sums[tile * table_rows];
  for (std::int64_t begin = 0; begin < count; begin += tile, codes += tile * groups) {
    const std::int64_t in_tile = count - begin < tile ? count - begin : tile;
    std::int64_t w = 0;
    for (; w + members_at_once <= in_tile; w += members_at_once) {
      look_up_rows_of_some<members_at_once>(d, sums + w * table_rows, tables, codes + w * groups, groups, table);
    }
    for (; w < in_tile; ++w) {
      look_up_rows_of_some<1>(d, sums + w * table_rows, tables, codes + w * groups, groups, table);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      float* const row = scores + r * stride + begin;
      for (w = 0; w < in_tile; ++w) row[w] = sums[w * table_rows + r];
    }
  }
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(gather);
HWY_EXPORT(scatter_add);
HWY_EXPORT(score);
HWY_EXPORT(look_up);
HWY_EXPORT(look_up_rows);

void gather_members(float* vectors, const float* codebook, const std::uint8_t* codes, std::int64_t count,
                    const MemberSizes& sizes) {
  HWY_DYNAMIC_DISPATCH(gather)
  (vectors, codebook, codes, count, sizes.groups, sizes.codes * sizes.width, sizes.width);
}

void scatter_add_members(float* codebook, const float* vectors, const std::uint8_t* codes, std::int64_t count,
                         const MemberSizes& sizes) {
  HWY_DYNAMIC_DISPATCH(scatter_add)
  (codebook, vectors, codes, count, sizes.groups, sizes.codes * sizes.width, sizes.width);
}

void score_members(float* scores, const float* h, const float* codebook, const std::uint8_t* codes, std::int64_t count,
                   const MemberSizes& sizes) {
  HWY_DYNAMIC_DISPATCH(score)
  (scores, h, codebook, codes, count, sizes.groups, sizes.codes * sizes.width, sizes.width);
}

void make_member_tables(float* tables, const float* h, std::int64_t rows, const float* codebook,
                        const MemberSizes& sizes) {
  const std::int64_t d = sizes.vector();
#pragma omp parallel for schedule(static)
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    sgemm(Transpose::no, Transpose::yes, rows, sizes.codes, sizes.width, 1.0f, {h + g * sizes.width, d},
          {codebook + g * sizes.codes * sizes.width, sizes.width}, 0.0f, tables + g * table_stride, sizes.table());
  }
}

void make_interleaved_tables(float* tables, const float* h, std::int64_t rows, const float* codebook,
                             const MemberSizes& sizes) {
  const std::int64_t table = sizes.codes * table_rows;
  if (rows < table_rows) std::fill_n(tables, sizes.groups * table, 0.0f);
#pragma omp parallel for schedule(static)
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    sgemm(Transpose::no, Transpose::yes, sizes.codes, rows, sizes.width, 1.0f,
          {codebook + g * sizes.codes * sizes.width, sizes.width}, {h + g * sizes.width, sizes.vector()}, 0.0f,
          tables + g * table, table_rows);
  }
}

void look_up_member_rows(float* scores, std::int64_t stride, std::int64_t rows, const float* tables,
                         const std::uint8_t* codes, std::int64_t count, const MemberSizes& sizes) {
  HWY_DYNAMIC_DISPATCH(look_up_rows)
  (scores, stride, rows, tables, codes, count, sizes.groups, sizes.codes * table_rows);
}

void look_up_members(float* scores, const float* table, const std::uint8_t* codes, std::int64_t count,
                     const MemberSizes& sizes) {
  static_assert(std::endian::native == std::endian::little);  // of eight codes in one load
  HWY_DYNAMIC_DISPATCH(look_up)(scores, table, codes, count, sizes.groups);
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
