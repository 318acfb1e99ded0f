// A gradient that is not finite: the update is skipped and counted, and too many in a row end the run with a checkpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <ostream>

#include "tests/data/temporary_folder.h"
#include "tests/train/tiny_run.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using testing::learning_by;
using testing::tiny_config;
using testing::tiny_steps;
using testing::train_run;
using testing::TrainedRun;

const std::string poisoned = "model.norm.weight";

ParameterId find(ParameterStore& store, const std::string& name) {
  for (std::size_t id = 0; id < store.parameters().size(); ++id) {
    if (store.parameters()[id].name == name) return static_cast<ParameterId>(id);
  }
  ADD_FAILURE() << "no parameter " << name;
  return 0;
}

struct HeadCase {
  const char* name;
  HeadKind kind;
  CodebookLearning learning = CodebookLearning::commitment;
};
void PrintTo(const HeadCase& c, std::ostream* out) {
  *out << c.name;
}

class SkippedUpdateTest : public ::testing::TestWithParam<HeadCase> {
 protected:
  SkippedUpdateTest() {
    testing::write_zipf_shards(folder_.path(), "train", 40);
    config_ = tiny_config(GetParam().kind, folder_.path(), folder_.file("run"));
    if (auto* vq = std::get_if<VqHeadConfig>(&config_.head)) vq->learning = learning_by(GetParam().learning);
    config_.data.heldout.clear();
    config_.train.grad_clip = 0;  // the check must not hang on clipping
  }

  /// All values of the rank's parameters and moments.
  static std::vector<float> state_of(Trainer& trainer) {
    const Tensor values = trainer.model().parameters().flat_values();
    const Tensor m = trainer.optimizer().first_moment(), v = trainer.optimizer().second_moment();
    std::vector<float> state;
    for (const Tensor& part : {values, m, v}) state.insert(state.end(), part.f32(), part.f32() + part.numel());
    return state;
  }

  TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  ProcessGrid grid_{*backend_};
};

TEST_P(SkippedUpdateTest, ChangesNothingAndTheRunGoesOn) {
  std::vector<float> gains, before;
  const TrainedRun run = train_run(*backend_, grid_, config_, false, 0, [&](Trainer& trainer) {
    ParameterStore& store = trainer.model().parameters();
    const ParameterId id = find(store, poisoned);
    const auto width = static_cast<std::size_t>(store.value(id).numel());
    switch (trainer.state().step + 1) {
      case 3:  // step 4 will compute with an infinite gain
        gains.assign(store.value(id).f32(), store.value(id).f32() + width);
        store.set_slice(id, std::vector<float>(width, std::numeric_limits<float>::infinity()));
        before = state_of(trainer);
        break;
      case 4:
        EXPECT_EQ(state_of(trainer), before) << "the update of a non-finite gradient changed something";
        store.set_slice(id, gains);
        break;
      default:
        break;
    }
  });
  ASSERT_EQ(run.losses.size(), static_cast<std::size_t>(tiny_steps));
  for (std::size_t i = 0; i < run.losses.size(); ++i) {
    const bool skipped = i == 3;
    EXPECT_EQ(std::isfinite(run.losses[i]), !skipped) << "step " << i + 1;
    EXPECT_EQ(run.lines[i].find("\"skipped\":true") != std::string::npos, skipped) << run.lines[i];
  }
  EXPECT_LT(run.losses.back(), run.losses.front());
}

TEST_P(SkippedUpdateTest, TooManyInARowEndTheRunWithACheckpoint) {
  config_.train.max_skipped_steps = 2;
  try {
    train_run(*backend_, grid_, config_, false, 0, [&](Trainer& trainer) {
      ParameterStore& store = trainer.model().parameters();
      const ParameterId id = find(store, poisoned);
      if (trainer.state().step + 1 != 5) return;
      const auto width = static_cast<std::size_t>(store.value(id).numel());
      store.set_slice(id, std::vector<float>(width, std::numeric_limits<float>::infinity()));
    });
    ADD_FAILURE() << "a run that can only skip went on";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 8"));  // 6, 7 and 8 were skipped
    EXPECT_THAT(error.what(), HasSubstr("train.max_skipped_steps = 2"));
  }
  EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(folder_.file("run")) / "checkpoints" / "step-00000008" /
                                      "manifest.json"));
}

INSTANTIATE_TEST_SUITE_P(Heads, SkippedUpdateTest,
                         ::testing::Values(HeadCase{"dense", HeadKind::dense}, HeadCase{"vq", HeadKind::vq},
                                           HeadCase{"vq_ema", HeadKind::vq, CodebookLearning::ema}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace vqlm
