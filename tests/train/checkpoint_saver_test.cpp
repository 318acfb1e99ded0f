// Saving in the background: what stays, what a failed save leaves behind, and a run that goes on.
#include "train/checkpoint/checkpoint_saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_checkpoint.h"
#include "tests/train/tiny_run.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::bytes_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::save_tiny;
using testing::tiny_config;
using testing::tiny_model_config;
using testing::TinyModel;
using testing::train_run;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Retention, MultiplesStayBesideTheNewest) {
  const TemporaryFolder folder;
  TinyModel model(tiny_model_config(HeadKind::vq));
  const fs::path checkpoints = fs::path(folder.path()) / "checkpoints";
  for (std::int64_t step = 2; step <= 16; step += 2) save_tiny(model, checkpoints, {.step = step}, 2, 6);
  EXPECT_THAT(names_in(checkpoints),
              ElementsAre("step-00000006", "step-00000012", "step-00000014", "step-00000016", "tokenizer.model"));
}

TEST(Retention, CheckpointsThatWerePassedOverNeitherCountNorGo) {
  const TemporaryFolder folder;
  TinyModel model(tiny_model_config(HeadKind::vq));
  const fs::path checkpoints = fs::path(folder.path()) / "checkpoints";
  for (std::int64_t step : {10, 20}) save_tiny(model, checkpoints, {.step = step});
  save_tiny(model, checkpoints, {.step = 15}, 1);  // a run that fell back to step 10
  EXPECT_THAT(names_in(checkpoints), ElementsAre("step-00000015", "step-00000020", "tokenizer.model"));
}

/// A limit on the size of files for as long as it lives: writes beyond it fail with EFBIG, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    EXPECT_NE(::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit limit{bytes, before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() { EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0); }

 private:
  rlimit before_{};
};

TEST(FailedSave, LeavesTheOthersAndTheNextOneWorks) {
  const TemporaryFolder folder;
  TinyModel model(tiny_model_config(HeadKind::vq));
  const fs::path checkpoints = fs::path(folder.path()) / "checkpoints";
  const fs::path earlier = save_tiny(model, checkpoints, {.step = 1}, 1);
  const std::uint64_t largest = fs::file_size(earlier / "rank-00000.h5");
  // From nothing at all to a byte too few: failures of creating, of writing values and of HDF5's metadata.
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{100}, largest / 3, largest / 2, largest - 1}) {
    std::string message;
    {
      const FileSizeLimit limit(bytes);
      message = message_of([&] { save_tiny(model, checkpoints, {.step = 2}, 1); });
    }
    EXPECT_THAT(message, AllOf(HasSubstr("rank 0: "), HasSubstr("step-00000002.partial/"), HasSubstr("File too large")))
        << bytes;
    EXPECT_THAT(names_in(checkpoints), ElementsAre("step-00000001", "tokenizer.model")) << bytes;
    EXPECT_EQ(message_of([&] { CheckpointReader(earlier, Verify::yes); }), "no error");
  }
  const CheckpointReader saved(save_tiny(model, checkpoints, {.step = 2}, 1), Verify::yes);
  EXPECT_EQ(saved.state().step, 2);
  EXPECT_THAT(names_in(checkpoints), ElementsAre("step-00000002", "tokenizer.model"));
}

TEST(FailedSave, IsToldUntilTheNextOneHasEnded) {
  const TemporaryFolder folder;
  TinyModel model(tiny_model_config(HeadKind::vq));
  const fs::path checkpoints = fs::path(folder.path()) / "checkpoints";
  fs::create_directories(checkpoints);
  CheckpointSaver saver({.backend = model.backend(),
                         .parameters = model.store(),
                         .optimizer = model.optimizer(),
                         .config = model.config(),
                         .map = model.map(),
                         .tokenizer = {},
                         .tokenizer_sha256 = testing::tiny_tokenizer_sha256},
                        model.grid(), checkpoints);
  log::set_level(log::level::off);
  {
    const FileSizeLimit limit(0);
    saver.begin({.step = 1});
    saver.begin({.step = 2});  // waits for the first
    EXPECT_EQ(saver.failures_in_a_row(), 1);
    EXPECT_THAT(saver.failure(), HasSubstr("step-00000001"));
    saver.finish();
    EXPECT_EQ(saver.failures_in_a_row(), 2);
  }
  saver.begin({.step = 3});
  saver.finish();
  log::set_level(log::level::info);
  EXPECT_EQ(saver.failures_in_a_row(), 0);
  EXPECT_EQ(saver.failure(), "");
}

class RunWithFailingSaves : public ::testing::Test {
 protected:
  RunWithFailingSaves() {
    log::set_level(log::level::off);
    testing::write_zipf_shards(folder_.path(), "train", 40);
    config_ = tiny_config(HeadKind::vq, folder_.path(), folder_.file("run"));
    config_.data.heldout.clear();
    config_.train.steps = 6;
    config_.checkpoint.every = 2;
    config_.checkpoint.keep = 0;
  }
  ~RunWithFailingSaves() override { log::set_level(log::level::info); }

  fs::path checkpoints() const { return fs::path(config_.run.dir) / "checkpoints"; }
  /// A folder where the rank file of this step's checkpoint should be.
  std::function<void(Trainer&)> in_the_way_of(std::int64_t step, const std::string& file) const {
    return [=, this](Trainer& trainer) {
      if (trainer.state().step + 1 != step) return;
      fs::create_directories(checkpoints() / (testing_name(step) + ".partial") / file);
    };
  }
  static std::string testing_name(std::int64_t step) { return "step-0000000" + std::to_string(step); }

  TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  ProcessGrid grid_{*backend_};
};

TEST_F(RunWithFailingSaves, GoesOnAndTriesAgain) {
  for (const char* file : {"rank-00000.h5", "checkpoint.h5", "manifest.json"}) {
    config_.run.dir = folder_.file(std::string("run-") + file);
    const auto run = train_run(*backend_, grid_, config_, false, 0, in_the_way_of(2, file));
    EXPECT_EQ(run.losses.size(), 6U);
    EXPECT_THAT(names_in(checkpoints()), ElementsAre("step-00000004", "step-00000006")) << file;
  }
}

TEST_F(RunWithFailingSaves, TheLastOneEndsTheRunAndSaysWhichIsTheNewest) {
  EXPECT_THAT(message_of([&] { train_run(*backend_, grid_, config_, false, 0, in_the_way_of(6, "rank-00000.h5")); }),
              AllOf(HasSubstr("the checkpoint of step 6 was not saved: rank 0: "), HasSubstr("rank-00000.h5"),
                    HasSubstr("the newest is " + (checkpoints() / "step-00000004").string()), HasSubstr("--resume")));
  EXPECT_THAT(names_in(checkpoints()), ElementsAre("step-00000002", "step-00000004"));
}

TEST_F(RunWithFailingSaves, SavesThatWorkAreInTheMetrics) {
  train_run(*backend_, grid_, config_);
  std::ifstream lines(fs::path(config_.run.dir) / "metrics.jsonl");
  std::vector<std::string> saved;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (!json.contains("checkpoint")) continue;
    saved.push_back(json.at("checkpoint"));
    for (const char* seconds : {"seconds_wait", "seconds_copy", "seconds_write"}) EXPECT_GE(json.at(seconds), 0.0);
    EXPECT_EQ(json.at("checkpoint"), testing_name(json.at("step").get<std::int64_t>()));
  }
  EXPECT_THAT(saved, ElementsAre("step-00000002", "step-00000004", "step-00000006"));
}

/// What is saved is the state when the save began, however far training is when it is written.
TEST(Snapshot, HoldsTheStateOfTheCopy) {
  const TemporaryFolder folder;
  TinyModel model(tiny_model_config(HeadKind::dense));
  model.randomize(1, 0.3f);
  const std::string before = bytes_of(model.store().value(0));
  CheckpointSnapshot snapshot(model.store(), model.optimizer());
  snapshot.take(model.backend());
  model.randomize(2, 0.3f);
  snapshot.write(folder.path(), 0);
  const h5::File file = h5::File::open(folder.file("rank-00000.h5"));
  const std::string name = model.store().parameters()[0].name + "/0";
  EXPECT_EQ(bytes_of(file.dataset(name).read_all<float>()), before);
  EXPECT_EQ(snapshot.bytes(), static_cast<std::size_t>(3 * 4 * model.store().global_count()));
}

}  // namespace
}  // namespace vqlm
