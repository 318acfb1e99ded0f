// Rotary frequencies of a configuration, against Hugging Face's formulas written with wavelengths, as its
// modeling_rope_utils does.
#include "core/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace vqlm {
namespace {

ModelConfig model_with(RopeScaling scaling) {
  ModelConfig model;
  model.d_model = 2048;
  model.n_heads = 16;
  model.rope_theta = 500'000;
  model.rope_scaling = scaling;
  return model;
}

double plain(int i) {
  return 1 / std::pow(500'000.0, 2.0 * i / 128);
}

/// A power, a quotient and a few sums in double: some units in the last place.
constexpr double relative = 16 * 0x1p-53;

TEST(RopeFrequencies, WithoutScaling) {
  const std::vector<double> found = rope_frequencies(model_with({}));
  ASSERT_EQ(found.size(), 64u);
  EXPECT_EQ(found[0], 1.0);
  for (int i = 0; i < 64; ++i) EXPECT_NEAR(found[static_cast<std::size_t>(i)], plain(i), relative * plain(i)) << i;
}

TEST(RopeFrequencies, LinearScalingDividesAll) {
  const std::vector<double> found = rope_frequencies(model_with({.kind = RopeScaling::Kind::linear, .factor = 2.5f}));
  for (int i = 0; i < 64; ++i)
    EXPECT_NEAR(found[static_cast<std::size_t>(i)], plain(i) / 2.5, relative * plain(i)) << i;
}

TEST(RopeFrequencies, Llama3KeepsQuickPairsAndSlowsDownSlowOnes) {
  // Llama 3.1's numbers.
  const std::vector<double> found = rope_frequencies(model_with({.kind = RopeScaling::Kind::llama3,
                                                                 .factor = 8,
                                                                 .low_freq_factor = 1,
                                                                 .high_freq_factor = 4,
                                                                 .original_positions = 8192}));
  int kept = 0, slowed = 0, between = 0;
  for (int i = 0; i < 64; ++i) {
    const double wavelength = 2 * std::numbers::pi / plain(i);
    double expected = 0;
    if (wavelength < 8192.0 / 4) {
      expected = plain(i);
      ++kept;
    } else if (wavelength > 8192.0 / 1) {
      expected = plain(i) / 8;
      ++slowed;
    } else {
      const double smooth = (8192 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) * plain(i) / 8 + smooth * plain(i);
      ++between;
    }
    EXPECT_NEAR(found[static_cast<std::size_t>(i)], expected, relative * plain(i)) << i;
  }
  EXPECT_GT(kept, 20);
  EXPECT_GT(slowed, 20);
  EXPECT_GT(between, 3);
}

}  // namespace
}  // namespace vqlm
