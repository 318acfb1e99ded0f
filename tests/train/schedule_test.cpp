// Learning rates at the corners of each schedule, where the formulas give exact values.
#include "train/config/schedule.h"

#include <gtest/gtest.h>

namespace vqlm {
namespace {

OptimSection optim(ScheduleKind kind) {
  OptimSection section;
  section.lr = 1.0f;
  section.schedule = kind;
  section.warmup_steps = 8;
  section.min_lr_ratio = 0.25f;
  section.decay_fraction = 0.25f;
  return section;
}

TEST(Schedule, WarmUpIsLinearAndReachesLr) {
  for (ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::wsd}) {
    EXPECT_EQ(learning_rate(optim(kind), 40, 1), 0.125f);
    EXPECT_EQ(learning_rate(optim(kind), 40, 4), 0.5f);
    EXPECT_EQ(learning_rate(optim(kind), 40, 8), 1.0f);
  }
}

TEST(Schedule, ConstantStays) {
  EXPECT_EQ(learning_rate(optim(ScheduleKind::constant), 40, 9), 1.0f);
  EXPECT_EQ(learning_rate(optim(ScheduleKind::constant), 40, 40), 1.0f);
}

TEST(Schedule, CosineGoesThroughItsMiddleToTheLastRate) {
  const OptimSection cosine = optim(ScheduleKind::cosine);
  EXPECT_LT(learning_rate(cosine, 40, 9), 1.0f);
  EXPECT_FLOAT_EQ(learning_rate(cosine, 40, 24), 0.625f);  // (1 + 0.25) / 2, half of the way down
  EXPECT_FLOAT_EQ(learning_rate(cosine, 40, 8 + 8), 0.25f + 0.75f * 0.8535534f);  // (1 + cos(pi/4)) / 2
  EXPECT_FLOAT_EQ(learning_rate(cosine, 40, 40), 0.25f);
  EXPECT_FLOAT_EQ(learning_rate(cosine, 40, 1000), 0.25f);
}

TEST(Schedule, WsdIsStableThenLinear) {
  const OptimSection wsd = optim(ScheduleKind::wsd);
  EXPECT_EQ(decay_steps(wsd, 40), 10);
  EXPECT_EQ(learning_rate(wsd, 40, 9), 1.0f);
  EXPECT_EQ(learning_rate(wsd, 40, 30), 1.0f);
  EXPECT_FLOAT_EQ(learning_rate(wsd, 40, 35), 0.625f);
  EXPECT_FLOAT_EQ(learning_rate(wsd, 40, 40), 0.25f);
  EXPECT_FLOAT_EQ(learning_rate(wsd, 40, 41), 0.25f);
}

TEST(Schedule, NoWarmUpAndNoDecay) {
  OptimSection section = optim(ScheduleKind::cosine);
  section.warmup_steps = 0;
  EXPECT_LT(learning_rate(section, 4, 1), 1.0f);
  section.schedule = ScheduleKind::wsd;
  section.decay_fraction = 0;
  EXPECT_EQ(learning_rate(section, 4, 4), 1.0f);
  section.warmup_steps = 4;  // all of the run
  section.schedule = ScheduleKind::cosine;
  EXPECT_EQ(learning_rate(section, 4, 4), 1.0f);
}

}  // namespace
}  // namespace vqlm
