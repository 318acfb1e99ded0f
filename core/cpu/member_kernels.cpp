#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/member_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include "core/cpu/lanes-inl.h"
#include "core/cpu/member_kernels.h"

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

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(gather);
HWY_EXPORT(scatter_add);

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

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
