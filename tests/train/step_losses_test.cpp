// When a loss counts as a jump.
#include "train/run/step_losses.h"

#include <gtest/gtest.h>

#include "core/rng.h"

namespace vqlm {
namespace {

TEST(LossWatch, KnowsNothingBeforeEnoughSteps) {
  LossWatch watch;
  for (std::size_t i = 0; i < LossWatch::fewest; ++i) {
    EXPECT_TRUE(std::isnan(watch.robust_z(100)));
    watch.add(3);
  }
  EXPECT_GT(watch.robust_z(100), StepLosses::jump);
}

TEST(LossWatch, OrdinaryNoiseIsNoJump) {
  const Philox rng(3, "losses");
  LossWatch watch;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    // About normal, on a falling curve.
    double sum = 0;
    for (std::uint64_t k = 0; k < 12; ++k) sum += static_cast<double>(rng.uniform(12 * i + k));
    const double loss = 3 + 5.0 / (1.0 + static_cast<double>(i) / 50) + 0.05 * (sum - 6);
    if (i > 600) {
      EXPECT_LT(watch.robust_z(loss), StepLosses::jump) << i;
      EXPECT_GT(watch.robust_z(loss + 1), StepLosses::jump) << i;
    }
    watch.add(loss);
  }
}

TEST(LossWatch, ASpikeDoesNotHideTheNext) {
  LossWatch watch;
  for (int i = 0; i < 40; ++i) watch.add(3 + 0.01 * (i % 5));
  for (int i = 0; i < 10; ++i) {
    EXPECT_GT(watch.robust_z(6), StepLosses::jump);
    watch.add(6);
  }
  watch.add(std::nan(""));  // is left out
  EXPECT_LT(watch.robust_z(3.02), 2);
}

TEST(LossWatch, EqualLossesMakeNoFlickerAJump) {
  LossWatch watch;
  for (int i = 0; i < 64; ++i) watch.add(2);
  EXPECT_LT(watch.robust_z(2.001), StepLosses::jump);
  EXPECT_GT(watch.robust_z(2.1), StepLosses::jump);
}

}  // namespace
}  // namespace vqlm
