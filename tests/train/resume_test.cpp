// Negative control of the resume tests: the comparison of losses notices a restore that is wrong in one thing only.
#include "train/run/resume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint/manifest.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using testing::tiny_config;
using testing::tiny_steps;
using testing::train_run;
using testing::TrainedRun;

constexpr std::int64_t stop_after = 7;

/// The manifest again, after a change of files or with other counts.
void rewrite_manifest(const fs::path& checkpoint, const TrainState& state) {
  fs::remove(checkpoint / "manifest.json");
  write_manifest(checkpoint, state);
}

/// Writes the rank file again with every dataset's values replaced; `source` gives the dataset to take them from.
void rewrite_rank_file(const fs::path& checkpoint, const std::function<std::string(const std::string&)>& source) {
  const std::string path = checkpoint / "rank-00000.h5";
  std::map<std::string, std::pair<h5::Dims, std::vector<float>>> tensors;
  {
    const h5::File file = h5::File::open(path);
    for (const std::string& name : file.names()) {
      for (const std::string& piece : file.names(name)) {
        const std::string dataset = name + "/" + piece;
        tensors[dataset] = {file.dataset(dataset).shape(), file.dataset(source(dataset)).read_all<float>()};
      }
    }
  }
  h5::File file = h5::File::create(path);
  for (const auto& [name, tensor] : tensors) {
    file.create_dataset(name, h5::Type::f32, tensor.first).write_all(std::span<const float>(tensor.second));
  }
  file.close();
  rewrite_manifest(checkpoint, read_manifest(checkpoint).state);
}

std::string same(const std::string& dataset) {
  return dataset;
}

/// v where m should be. (m for v would not even train: it has negative elements.)
std::string second_moment(std::string dataset) {
  return dataset.starts_with("optimizer.m.") ? dataset.replace(10, 1, "v") : dataset;
}

/// The second moments of one small matrix from another of its shape, and nothing else.
std::string other_layers_moment(std::string dataset) {
  const std::string prefix = "optimizer.v.model.layers.0.self_attn.k_proj";
  return dataset.starts_with(prefix) ? dataset.replace(25, 1, "1") : dataset;
}

class ResumeControl : public ::testing::Test {
 protected:
  ResumeControl() : backend_(make_cpu_backend(1)), grid_(*backend_) {
    log::set_level(log::level::warn);
    testing::write_zipf_shards(folder_.path(), "train", 120, vocabulary);
    testing::write_zipf_shards(folder_.path(), "heldout", 6, vocabulary);
    whole_ = train_run(*backend_, grid_, config("whole"));
    train_run(*backend_, grid_, config("cut"), false, stop_after);
  }

  Config config(const std::string& run) const {
    return tiny_config(HeadKind::vq, folder_.path(), fs::path(folder_.path()) / run);
  }

  /// Changes one byte in the middle of a file.
  static void damage(const fs::path& path) {
    std::string bytes = read_bytes(path);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_bytes(path, bytes);
  }

  /// Resumes a copy of the cut run after `tamper` has changed its checkpoint.
  TrainedRun resume_after(const std::function<void(const fs::path&)>& tamper) {
    const std::string name = "copy-" + std::to_string(copies_++);
    fs::copy(folder_.file("cut"), folder_.file(name), fs::copy_options::recursive);
    tamper(find_checkpoint(folder_.file(name)));
    TrainedRun run = train_run(*backend_, grid_, config(name), true);
    EXPECT_EQ(run.losses.size(), static_cast<std::size_t>(tiny_steps));
    return run;
  }

  static constexpr std::int64_t vocabulary = 997;
  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_;
  TrainedRun whole_;
  int copies_ = 0;
};

TEST_F(ResumeControl, AnUntouchedOrFaithfullyRewrittenCheckpointIsBitIdentical) {
  for (const auto& tamper : {std::function<void(const fs::path&)>([](const fs::path&) {}),
                             std::function<void(const fs::path&)>(
                                 [](const fs::path& checkpoint) { rewrite_rank_file(checkpoint, same); })}) {
    const TrainedRun run = resume_after(tamper);
    EXPECT_EQ(run.first_step, stop_after);
    EXPECT_EQ(run.losses, whole_.losses);
    EXPECT_EQ(run.heldout, whole_.heldout);
  }
}

TEST_F(ResumeControl, FallsBackToTheNewestIntactCheckpoint) {
  Config with_more = config("more");
  with_more.checkpoint.every = 2;
  with_more.checkpoint.keep = 0;
  train_run(*backend_, grid_, with_more, false, stop_after);  // 2, 4, 6 and 7
  const fs::path checkpoints = fs::path(with_more.run.dir) / "checkpoints";
  damage(checkpoints / "step-00000007" / "rank-00000.h5");
  damage(checkpoints / "step-00000006" / "manifest.json");
  const TrainedRun run = train_run(*backend_, grid_, with_more, true);
  EXPECT_EQ(run.first_step, 4);
  EXPECT_EQ(run.losses, whole_.losses);
  // What was passed over has been written again on the way.
  EXPECT_EQ(CheckpointReader(checkpoints / "step-00000006", Verify::yes).state().step, 6);
}

// Steps and save are done, and the job ended before the evaluation: whoever resumes gets it, and nothing else to do.
TEST_F(ResumeControl, TheLastEvaluationIsMadeUpWhereAJobDiedBeforeIt) {
  const auto opened = [&](bool owes) {
    Config finished = config("whole");
    ShardSet shards = open_training_shards(finished);
    resolve(finished, shards.vocab_size(), 1);
    const TrainingRun run(*backend_, grid_, finished, std::move(shards),
                          {.existing = ExistingRun::resume, .matmul_peak = Trainer::nobodys_peak});
    EXPECT_EQ(run.has_nothing_to_do(), !owes);
  };
  opened(false);
  const fs::path records = folder_.path() / fs::path("whole/metrics.jsonl");
  const std::string all = read_bytes(records);
  const std::size_t last = all.rfind('\n', all.rfind("heldout_loss")) + 1;
  const std::string rest = all.substr(all.find('\n', last) + 1);
  ASSERT_EQ(rest.find("\"loss\""), std::string::npos);  // of the last step
  write_bytes(records, all.substr(0, last) + rest);
  opened(true);
  const TrainedRun run = train_run(*backend_, grid_, config("whole"), true);
  EXPECT_EQ(run.first_step, tiny_steps);
  EXPECT_EQ(run.losses, whole_.losses);
  EXPECT_EQ(run.heldout, whole_.heldout);
  opened(false);
}

TEST_F(ResumeControl, WithoutAnyIntactCheckpointNothingIsTrained) {
  damage(fs::path(folder_.file("cut")) / "checkpoints" / "step-00000007" / "config.toml");
  EXPECT_THAT(message_of([&] { train_run(*backend_, grid_, config("cut"), true); }),
              ::testing::AllOf(::testing::HasSubstr("is intact: "), ::testing::HasSubstr("config.toml"),
                               ::testing::HasSubstr("--force")));
}

TEST_F(ResumeControl, AStaleDataCursorIsNoticed) {
  const TrainedRun run = resume_after([&](const fs::path& checkpoint) {
    TrainState state = read_manifest(checkpoint).state;
    state.samples -= config("cut").train.global_batch;
    rewrite_manifest(checkpoint, state);
  });
  EXPECT_EQ(run.first_step, stop_after);
  EXPECT_NE(run.losses[stop_after], whole_.losses[stop_after]);  // step 8 is trained on step 7's samples
  EXPECT_NE(run.losses, whole_.losses);
}

TEST_F(ResumeControl, OtherShardsWithAsManyTokensAreRefused) {
  const fs::path shards(folder_.file("swapped"));
  fs::create_directory(shards);
  std::vector<std::string> paths;
  const ShardSet set(config("cut").data.train);
  for (const ShardSet::Shard& shard : set.shards()) paths.push_back(shard.path);
  ASSERT_GE(paths.size(), 2u);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    fs::copy(paths[i], shards / fs::path(paths[i == 0 ? 1 : i == 1 ? 0 : i]).filename());
  }
  Config other = config("cut");
  other.data.train = (shards / "train-*.h5").string();
  EXPECT_THAT(message_of([&] { train_run(*backend_, grid_, other, true); }),
              ::testing::HasSubstr("tokens as before, but of other text, or in another order of shards"));
}

TEST_F(ResumeControl, MomentsOfTheOtherKindAreNoticed) {
  const TrainedRun run = resume_after([](const fs::path& checkpoint) { rewrite_rank_file(checkpoint, second_moment); });
  EXPECT_EQ(run.first_step, stop_after);
  EXPECT_EQ(run.losses[stop_after], whole_.losses[stop_after]);  // the parameters are right
  EXPECT_NE(run.losses[stop_after + 1], whole_.losses[stop_after + 1]);
}

TEST_F(ResumeControl, OneTensorsWrongMomentIsNoticed) {
  const TrainedRun run =
      resume_after([](const fs::path& checkpoint) { rewrite_rank_file(checkpoint, other_layers_moment); });
  EXPECT_EQ(run.losses[stop_after], whole_.losses[stop_after]);
  EXPECT_NE(run.losses[stop_after + 1], whole_.losses[stop_after + 1]);
}

}  // namespace
}  // namespace vqlm
