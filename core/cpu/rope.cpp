// Rotary position embedding (arXiv 2104.09864), half-split pairs as Hugging Face stores them:
//   (x_i, x_{i+D/2}) -> (x_i cos - x_{i+D/2} sin, x_{i+D/2} cos + x_i sin), angle = t * theta^(-2i / D).
// The backward pass is the rotation by -angle.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/rope.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cmath>
#include <vector>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// Rotates `heads` consecutive heads of 2 * half elements by the angles of one position.
void rotate_heads(float* x, const float* cosine, const float* sine, std::int64_t heads, std::int64_t half) {
  for (std::int64_t head = 0; head < heads; ++head) {
    float* const low = x + 2 * head * half;
    float* const high = low + half;
    for_lanes(0, half, [&](auto d, std::int64_t i) HWY_ATTR {
      const auto a = hn::LoadU(d, low + i), b = hn::LoadU(d, high + i);
      const auto c = hn::LoadU(d, cosine + i), s = hn::LoadU(d, sine + i);
      hn::StoreU(hn::MulSub(a, c, hn::Mul(b, s)), d, low + i);
      hn::StoreU(hn::MulAdd(b, c, hn::Mul(a, s)), d, high + i);
    });
  }
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(rotate_heads);

namespace {

/// Cosines and sines of consecutive positions: exact at the first, then one rotation by the frequency in
/// double per step. After the 32 steps of a block the error is below 32 * 2^-52, nothing beside a float's
/// 2^-24, and a step costs about a nanosecond per angle where sincos costs 20.
class Angles {
 public:
  Angles(const std::vector<double>& frequencies, std::int64_t position, double direction)
      : half_(frequencies.size()),
        step_cos_(half_),
        step_sin_(half_),
        cos_(half_),
        sin_(half_),
        rows_(2 * half_) {
    for (std::size_t i = 0; i < half_; ++i) {
      const double frequency = direction * frequencies[i];
      const double angle = static_cast<double>(position) * frequency;
      step_cos_[i] = std::cos(frequency);
      step_sin_[i] = std::sin(frequency);
      cos_[i] = std::cos(angle);
      sin_[i] = std::sin(angle);
    }
    round();
  }

  const float* cosine() const { return rows_.data(); }
  const float* sine() const { return rows_.data() + half_; }

  void advance() {
    for (std::size_t i = 0; i < half_; ++i) {
      const double c = cos_[i] * step_cos_[i] - sin_[i] * step_sin_[i];
      sin_[i] = sin_[i] * step_cos_[i] + cos_[i] * step_sin_[i];
      cos_[i] = c;
    }
    round();
  }

 private:
  void round() {
    for (std::size_t i = 0; i < half_; ++i) {
      rows_[i] = static_cast<float>(cos_[i]);
      rows_[half_ + i] = static_cast<float>(sin_[i]);
    }
  }

  std::size_t half_;
  std::vector<double> step_cos_, step_sin_, cos_, sin_;
  std::vector<float> rows_;
};

void rotate(Tensor qkv, const AttentionShape& shape, float theta, double direction) {
  VQLM_ASSERT(shape.head_dim > 0 && shape.head_dim % 2 == 0);
  VQLM_ASSERT(qkv.numel() == shape.batch * shape.seq_len * shape.row());
  const std::int64_t half = shape.head_dim / 2;
  std::vector<double> frequencies(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    frequencies[static_cast<std::size_t>(i)] = std::pow(
        static_cast<double>(theta), -2.0 * static_cast<double>(i) / static_cast<double>(shape.head_dim));
  }
  float* const data = qkv.f32();
  constexpr std::int64_t positions = 32;
  const std::int64_t blocks_per_sequence = (shape.seq_len + positions - 1) / positions;
  parallel_blocks(shape.batch * blocks_per_sequence, 1, [&](std::int64_t block, std::int64_t) {
    const std::int64_t sequence = block / blocks_per_sequence;
    const std::int64_t begin = block % blocks_per_sequence * positions;
    const std::int64_t end = std::min(shape.seq_len, begin + positions);
    Angles angles(frequencies, begin, direction);
    for (std::int64_t t = begin; t < end; ++t) {
      if (t > begin) angles.advance();
      float* const row = data + (sequence * shape.seq_len + t) * shape.row();
      HWY_DYNAMIC_DISPATCH(rotate_heads)
      (row, angles.cosine(), angles.sine(), shape.heads + shape.kv_heads, half);
    }
  });
}

}  // namespace

void rope_forward(Tensor qkv, const AttentionShape& shape, float theta) {
  rotate(qkv, shape, theta, 1.0);
}

void rope_backward(Tensor dqkv, const AttentionShape& shape, float theta) {
  rotate(dqkv, shape, theta, -1.0);
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
