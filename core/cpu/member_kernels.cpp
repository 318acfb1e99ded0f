#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/member_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include "core/cpu/lanes-inl.h"
#include "core/cpu/member_kernels.h"
#include "core/cpu/sgemm.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// segment(vector offset, codebook offset) for each group of each member, in order.
template <class Segment>
HWY_INLINE void for_segments(const std::uint8_t* codes, std::int64_t count, std::int64_t groups,
                             std::int64_t table, std::int64_t width, const Segment& segment) {
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

void gather(float* vectors, const float* codebook, const std::uint8_t* codes, std::int64_t count,
            std::int64_t groups, std::int64_t table, std::int64_t width) {
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
        hn::StoreU(hn::Add(hn::LoadU(d, codebook + to + i), hn::LoadU(d, vectors + at + i)), d,
                   codebook + to + i);
      }
    });
  });
}

/// Members of which score() makes the products at once: as many independent sums hide the latency of a multiply-add.
constexpr int members_at_once = 4;

/// The dot products of h with `members` members' vectors.
template <int members, class D>
HWY_INLINE void score_some(D d, float* scores, const float* h, const float* codebook,
                           const std::uint8_t* codes, std::int64_t groups, std::int64_t table,
                           std::int64_t width) {
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

void score(float* scores, const float* h, const float* codebook, const std::uint8_t* codes,
           std::int64_t count, std::int64_t groups, std::int64_t table, std::int64_t width) {
  with_dividing_tag(width, [&](auto d) HWY_ATTR {
    std::int64_t w = 0;
    for (; w + members_at_once <= count; w += members_at_once) {
      score_some<members_at_once>(d, scores + w, h, codebook, codes + w * groups, groups, table, width);
    }
    for (; w < count; ++w)
      score_some<1>(d, scores + w, h, codebook, codes + w * groups, groups, table, width);
  });
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(gather);
HWY_EXPORT(scatter_add);
HWY_EXPORT(score);

namespace {

/// The sum of one row's table entries at a member's codes; four sums hide the latency of addition.
float look_up_member(const float* tables, const std::uint8_t* codes, const MemberSizes& sizes) {
  float sums[4] = {};
  std::int64_t g = 0;
  for (; g + 4 <= sizes.groups; g += 4) {
    for (std::int64_t i = 0; i < 4; ++i) sums[i] += tables[(g + i) * sizes.codes + codes[g + i]];
  }
  for (; g < sizes.groups; ++g) sums[0] += tables[g * sizes.codes + codes[g]];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

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

void score_members(float* scores, const float* h, const float* codebook, const std::uint8_t* codes,
                   std::int64_t count, const MemberSizes& sizes) {
  HWY_DYNAMIC_DISPATCH(score)
  (scores, h, codebook, codes, count, sizes.groups, sizes.codes * sizes.width, sizes.width);
}

void make_member_tables(float* tables, const float* h, std::int64_t rows, const float* codebook,
                        const MemberSizes& sizes) {
  const std::int64_t d = sizes.vector();
#pragma omp parallel for schedule(static)
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    sgemm(Transpose::no, Transpose::yes, rows, sizes.codes, sizes.width, 1.0f, {h + g * sizes.width, d},
          {codebook + g * sizes.codes * sizes.width, sizes.width}, 0.0f, tables + g * sizes.codes,
          sizes.groups * sizes.codes);
  }
}

void look_up_members(float* scores, const float* table, const std::uint8_t* codes, std::int64_t count,
                     const MemberSizes& sizes) {
  for (std::int64_t w = 0; w < count; ++w) scores[w] = look_up_member(table, codes + w * sizes.groups, sizes);
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
