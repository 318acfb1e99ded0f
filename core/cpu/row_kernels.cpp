#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/row_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <limits>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/row_kernels.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// Access to a whole vector of a row.
struct WholeVector {
  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, const float* p, float /*pad*/) const {
    return hn::LoadU(d, p);
  }
  template <class D>
  HWY_INLINE void store(hn::Vec<D> v, D d, float* p) const {
    hn::StoreU(v, d, p);
  }
};

/// Access to the `count` elements at a row's end; lanes behind them read as `pad`. An exponential costs the same for
/// one lane as for all, so the one-lane tails of for_lanes would cost as much as a hundred elements.
struct FirstLanes {
  std::size_t count;

  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, const float* p, float pad) const {
#if HWY_MEM_OPS_MIGHT_FAULT
    HWY_ALIGN float lanes[hn::MaxLanes(d)];
    for (std::size_t i = 0; i < hn::MaxLanes(d); ++i) lanes[i] = i < count ? p[i] : pad;
    return hn::Load(d, lanes);
#else
    const auto mask = hn::FirstN(d, count);
    return hn::IfThenElse(mask, hn::MaskedLoad(mask, d, p), hn::Set(d, pad));
#endif
  }
  template <class D>
  HWY_INLINE void store(hn::Vec<D> v, D d, float* p) const {
#if HWY_MEM_OPS_MIGHT_FAULT
    HWY_ALIGN float lanes[hn::MaxLanes(d)];
    hn::Store(v, d, lanes);
    for (std::size_t i = 0; i < count; ++i) p[i] = lanes[i];
#else
    hn::BlendedStore(v, hn::FirstN(d, count), d, p);
#endif
  }
};

using Tag = hn::ScalableTag<float>;
using Vector = hn::Vec<Tag>;

/// body(access, i) for the vectors of [begin, end).
template <class Body>
HWY_INLINE void for_vectors(std::int64_t begin, std::int64_t end, const Body& body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Tag()));
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(WholeVector{}, i);
  if (i < end) body(FirstLanes{static_cast<std::size_t>(end - i)}, i);
}

/// exp(x) within 1 ulp, 0 below -104; Highway's own gives 0 for NaN too.
HWY_INLINE Vector exponential(Vector x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(Tag(), x));
}

/// x + bias with absent lanes at minus infinity.
template <class Access>
HWY_INLINE Vector logit(const Access& access, const float* x, const float* bias, std::int64_t i) {
  const Tag d;
  const Vector value = access.load(d, x + i, minus_infinity);
  return bias == nullptr ? value : hn::Add(value, access.load(d, bias + i, 0.0f));
}

RowStatistics row_statistics(const float* x, const float* bias, std::int64_t n) {
  constexpr std::int64_t block = 1024;
  const Tag d;
  float maximum = minus_infinity, sum = 0;
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t end = begin + block < n ? begin + block : n;
    Vector top = hn::Set(d, minus_infinity);
    for_vectors(begin, end,
                [&](auto access, std::int64_t i) HWY_ATTR { top = hn::Max(top, logit(access, x, bias, i)); });
    const float block_maximum = hn::GetLane(hn::MaxOfLanes(d, top));
    if (!(block_maximum <= maximum)) {
      const float ratio = hn::GetLane(exponential(hn::Set(d, maximum - block_maximum)));
      sum = begin == 0 ? 0.0f : sum * ratio;
      maximum = block_maximum;
    }
    const Vector shift = hn::Set(d, maximum);
    Vector total = hn::Zero(d);
    for_vectors(begin, end, [&](auto access, std::int64_t i) HWY_ATTR {
      total = hn::Add(total, exponential(hn::Sub(logit(access, x, bias, i), shift)));
    });
    sum += hn::GetLane(hn::SumOfLanes(d, total));
  }
  return {maximum, sum};
}

void row_softmax(float* x, const float* bias, float lse, float scale, std::int64_t n) {
  const Tag d;
  const Vector shift = hn::Set(d, lse), factor = hn::Set(d, scale);
  for_vectors(0, n, [&](auto access, std::int64_t i) HWY_ATTR {
    const Vector p = exponential(hn::Sub(logit(access, x, bias, i), shift));
    access.store(hn::Mul(p, factor), d, x + i);
  });
}

void row_shift(float* x, const float* bias, float shift, std::int64_t n) {
  const Tag d;
  const Vector all = hn::Set(d, shift);
  for_vectors(0, n, [&](auto access, std::int64_t i) HWY_ATTR {
    access.store(hn::Sub(logit(access, x, bias, i), all), d, x + i);
  });
}

void row_cap(float* y, const float* x, const float* bias, float cap, std::int64_t n) {
  const Tag d;
  const Vector factor = hn::Set(d, cap), inverse = hn::Set(d, 1 / cap);
  for_vectors(0, n, [&](auto access, std::int64_t i) HWY_ATTR {
    const Vector part = hn::Mul(logit(access, x, bias, i), inverse);
    const Vector turned = hn::IfThenElse(hn::IsNaN(part), part, hn::Tanh(d, part));
    access.store(hn::Mul(turned, factor), d, y + i);
  });
}

void row_cap_gradient(float* dy, const float* y, float cap, std::int64_t n) {
  const Tag d;
  const Vector inverse = hn::Set(d, 1 / cap), one = hn::Set(d, 1.0f);
  for_vectors(0, n, [&](auto access, std::int64_t i) HWY_ATTR {
    const Vector part = hn::Mul(access.load(d, y + i, 0.0f), inverse);
    access.store(hn::Mul(access.load(d, dy + i, 0.0f), hn::NegMulAdd(part, part, one)), d, dy + i);
  });
}

float row_maximum(const float* x, std::int64_t n) {
  const Tag d;
  Vector top = hn::Set(d, minus_infinity);
  for_vectors(0, n,
              [&](auto access, std::int64_t i) HWY_ATTR { top = hn::Max(top, access.load(d, x + i, minus_infinity)); });
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

float row_exp(float* x, float scale, float shift, std::int64_t n) {
  const Tag d;
  const Vector factor = hn::Set(d, scale), offset = hn::Set(d, shift);
  Vector total = hn::Zero(d);
  for_vectors(0, n, [&](auto access, std::int64_t i) HWY_ATTR {
    const Vector p = exponential(hn::MulSub(access.load(d, x + i, minus_infinity), factor, offset));
    total = hn::Add(total, p);
    access.store(p, d, x + i);
  });
  return hn::GetLane(hn::SumOfLanes(d, total));
}

void row_attention_gradient(float* scores, float* dscores, float scale, float lse, float delta, std::int64_t n) {
  const Tag d;
  const Vector factor = hn::Set(d, scale), shift = hn::Set(d, lse), mean = hn::Set(d, delta);
  for_vectors(0, n, [&](auto access, std::int64_t i) HWY_ATTR {
    const Vector p = exponential(hn::MulSub(access.load(d, scores + i, minus_infinity), factor, shift));
    access.store(p, d, scores + i);
    access.store(hn::Mul(p, hn::Sub(access.load(d, dscores + i, 0.0f), mean)), d, dscores + i);
  });
}

float row_dot(const float* a, const float* b, std::int64_t n) {
  return sum_lanes(n, [&](auto d, std::int64_t i, auto sum)
                          HWY_ATTR { return hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum); });
}

void row_scale(float* y, float factor, std::int64_t n) {
  for_lanes(0, n, [&](auto d, std::int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, y + i), hn::Set(d, factor)), d, y + i);
  });
}

void row_add(float* y, const float* x, float factor, std::int64_t n) {
  for_lanes(0, n, [&](auto d, std::int64_t i) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, x + i), hn::Set(d, factor), hn::LoadU(d, y + i)), d, y + i);
  });
}

float row_add_difference(float* y, const float* a, const float* b, float factor, std::int64_t n) {
  return sum_lanes(n, [&](auto d, std::int64_t i, auto sum) HWY_ATTR {
    const auto difference = hn::Sub(hn::LoadU(d, a + i), hn::LoadU(d, b + i));
    if (y != nullptr) {
      hn::StoreU(hn::MulAdd(difference, hn::Set(d, factor), hn::LoadU(d, y + i)), d, y + i);
    }
    return hn::MulAdd(difference, difference, sum);
  });
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(row_statistics);
HWY_EXPORT(row_softmax);
HWY_EXPORT(row_shift);
HWY_EXPORT(row_cap);
HWY_EXPORT(row_cap_gradient);
HWY_EXPORT(row_maximum);
HWY_EXPORT(row_exp);
HWY_EXPORT(row_attention_gradient);
HWY_EXPORT(row_dot);
HWY_EXPORT(row_scale);
HWY_EXPORT(row_add);
HWY_EXPORT(row_add_difference);

RowStatistics row_statistics(const float* x, const float* bias, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(row_statistics)(x, bias, n);
}
void row_softmax(float* x, const float* bias, float lse, float scale, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_softmax)(x, bias, lse, scale, n);
}
void row_shift(float* x, const float* bias, float shift, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_shift)(x, bias, shift, n);
}
void row_cap(float* y, const float* x, const float* bias, float cap, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_cap)(y, x, bias, cap, n);
}
void row_cap_gradient(float* dy, const float* y, float cap, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_cap_gradient)(dy, y, cap, n);
}
float row_maximum(const float* x, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(row_maximum)(x, n);
}
float row_exp(float* x, float scale, float shift, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(row_exp)(x, scale, shift, n);
}
void row_attention_gradient(float* scores, float* dscores, float scale, float lse, float delta, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_attention_gradient)(scores, dscores, scale, lse, delta, n);
}
float row_dot(const float* a, const float* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(row_dot)(a, b, n);
}
void row_scale(float* y, float factor, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_scale)(y, factor, n);
}
void row_add(float* y, const float* x, float factor, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(row_add)(y, x, factor, n);
}
float row_add_difference(float* y, const float* a, const float* b, float factor, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(row_add_difference)(y, a, b, factor, n);
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
