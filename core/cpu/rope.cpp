// Rotary position embedding (arXiv 2104.09864), half-split pairs as Hugging Face stores them:
//   (x_i, x_{i+D/2}) -> (x_i cos - x_{i+D/2} sin, x_{i+D/2} cos + x_i sin), angle = position * frequency_i.
// The backward pass is the rotation by -angle.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/rope.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cmath>
#include <vector>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/ops/rope.h"

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

/// Cosines and sines of one position's angles (half).
struct Rotation {
  explicit Rotation(std::size_t half) : cosine(half), sine(half) {}
  std::vector<double> cosine, sine;
};

/// The rotation by angles position * frequencies (half).
Rotation rotation_of(std::int64_t position, const std::vector<double>& frequencies) {
  Rotation rotation(frequencies.size());
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    rotation.cosine[i] = std::cos(angle);
    rotation.sine[i] = std::sin(angle);
  }
  return rotation;
}

/// Positions of a block: the first is computed exactly, each other turned on from the one before, in double.
/// After 64 steps the error is below 64 * 2^-52, nothing beside a float's 2^-24, and a step costs 1 ns an
/// angle where sincos costs 20.
constexpr std::int64_t positions_per_block = 64;

/// Turns `rotation` on by `step`.
void advance(Rotation& rotation, const Rotation& step) {
  for (std::size_t i = 0; i < step.cosine.size(); ++i) {
    const double c = rotation.cosine[i], s = rotation.sine[i];
    rotation.cosine[i] = c * step.cosine[i] - s * step.sine[i];
    rotation.sine[i] = s * step.cosine[i] + c * step.sine[i];
  }
}

void rotate(Tensor qkv, const AttentionShape& shape, const RopePositions& positions, double direction) {
  const std::int64_t half = shape.head_dim / 2;
  const double* const given = positions.frequencies.as<double>();
  std::vector<double> frequencies(given, given + half);
  for (double& frequency : frequencies) frequency *= direction;
  const Rotation step = rotation_of(1, frequencies);
  float* const data = qkv.f32();
  const std::int64_t blocks_per_sequence = (shape.seq_len + positions_per_block - 1) / positions_per_block;
  parallel_blocks(shape.batch * blocks_per_sequence, 1, [&](std::int64_t block, std::int64_t) {
    const std::int64_t sequence = block / blocks_per_sequence;
    const std::int64_t begin = block % blocks_per_sequence * positions_per_block;
    const std::int64_t end = std::min(shape.seq_len, begin + positions_per_block);
    Rotation rotation = rotation_of(positions.first + begin, frequencies);
    std::vector<float> cosine(frequencies.size()), sine(frequencies.size());
    for (std::int64_t t = begin; t < end; ++t) {
      std::copy(rotation.cosine.begin(), rotation.cosine.end(), cosine.begin());
      std::copy(rotation.sine.begin(), rotation.sine.end(), sine.begin());
      float* const row = data + (sequence * shape.seq_len + t) * shape.row();
      HWY_DYNAMIC_DISPATCH(rotate_heads)(row, cosine.data(), sine.data(), shape.heads + shape.kv_heads, half);
      advance(rotation, step);
    }
  });
}

}  // namespace

template <>
void run(const RopeForward& op) {
  rotate(op.qkv, op.shape, op.positions, 1.0);
}

template <>
void run(const RopeBackward& op) {
  rotate(op.dqkv, op.shape, op.positions, -1.0);
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
