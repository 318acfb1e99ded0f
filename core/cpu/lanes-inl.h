// Loops over Highway vectors with exact tails. Included once per instruction set (see Highway's -inl.h
// convention); code here and in the kernels that include it must not call inline functions of other headers
// (std::min, ...): a copy compiled for AVX-512 could be the one that the linker keeps for all.
#if defined(VQLM_CORE_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VQLM_CORE_CPU_LANES_INL_H_
#undef VQLM_CORE_CPU_LANES_INL_H_
#else
#define VQLM_CORE_CPU_LANES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// body(tag, i) for whole vectors of [begin, end), then one lane at a time: masked loads would read beyond
/// the end on SSE2. The body is a generic lambda marked HWY_ATTR.
template <class Body>
HWY_INLINE void for_lanes(std::int64_t begin, std::int64_t end, const Body& body) {
  const hn::ScalableTag<float> vector;
  const hn::CappedTag<float, 1> scalar;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(vector));
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(vector, i);
  for (; i < end; ++i) body(scalar, i);
}

/// The sum over [0, n) where step(tag, i, sum) returns sum plus the terms at i. Four independent sums hide
/// the latency of addition.
template <class Step>
HWY_INLINE float sum_lanes(std::int64_t n, const Step& step) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> scalar;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = step(d, i, s0);
    s1 = step(d, i + lanes, s1);
    s2 = step(d, i + 2 * lanes, s2);
    s3 = step(d, i + 3 * lanes, s3);
  }
  for (; i + lanes <= n; i += lanes) s0 = step(d, i, s0);
  auto tail = hn::Zero(scalar);
  for (; i < n; ++i) tail = step(scalar, i, tail);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)))) + hn::GetLane(tail);
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // include toggle
