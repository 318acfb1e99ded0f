// Checkpoints on one rank: what is saved is what is loaded, which ones are kept, and which are found.
// checkpoint_damage_test.cpp damages them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_checkpoint.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::bytes_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::save_tiny;
using testing::set_groups;
using testing::tiny_model_config;
using testing::TinyModel;
using testing::vq;

struct Case {
  const char* name;
  HeadKind kind;
  bool tied;
  int groups;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class Checkpoint : public ::testing::TestWithParam<Case> {
 protected:
  static Config config() {
    Config config = tiny_model_config(GetParam().kind);
    config.model.tie_embeddings = GetParam().tied;
    set_groups(config, GetParam().groups);
    config.optim.lr = 0.1f / 3;  // no short decimal
    config.checkpoint.keep = 0;
    return config;
  }
  fs::path folder() const { return folder_.path(); }

  TemporaryFolder folder_;
};

TEST_P(Checkpoint, LoadsWhatWasSavedBitForBit) {
  TinyModel saved(config());
  saved.randomize(1, 0.3f);
  TinyModel loaded(config());
  loaded.randomize(2, 0.3f);
  ASSERT_NE(bytes_of(loaded.store().flat_values()), bytes_of(saved.store().flat_values()));

  const CheckpointReader reader(save_tiny(saved, folder(), {.step = 17, .samples = 34, .tokens = 272}), Verify::yes);
  load_parameters(reader, loaded.store());
  reader.load_training_state(loaded.backend(), loaded.store(), loaded.optimizer());
  for (std::size_t i = 0; i < saved.store().parameters().size(); ++i) {
    const auto id = static_cast<ParameterId>(i);
    EXPECT_EQ(bytes_of(loaded.store().value(id)), bytes_of(saved.store().value(id)))
        << saved.store().parameters()[i].name;
  }
  for (const Optimizer::OwnedSlice& slice : saved.optimizer().owned_slices()) {
    const std::string& name = saved.store().parameters()[static_cast<std::size_t>(slice.parameter)].name;
    const auto moment = [&](Tensor all) { return bytes_of(all.range(slice.moment_begin, slice.count)); };
    EXPECT_EQ(moment(loaded.optimizer().first_moment()), moment(saved.optimizer().first_moment())) << name;
    EXPECT_EQ(moment(loaded.optimizer().second_moment()), moment(saved.optimizer().second_moment())) << name;
  }
}

TEST_P(Checkpoint, CarriesStateConfigurationTokenizerAndMap) {
  TinyModel saved(config());
  const CheckpointReader reader(save_tiny(saved, folder(), {.step = 17, .samples = 34, .tokens = 272}), Verify::yes);
  EXPECT_EQ(reader.path().filename(), "step-00000017");
  EXPECT_EQ(reader.state().step, 17);
  EXPECT_EQ(reader.state().samples, 34);
  EXPECT_EQ(reader.state().tokens, 272);
  EXPECT_EQ(to_toml(reader.config()), to_toml(saved.config()));
  EXPECT_EQ(reader.tokenizer_sha256(), testing::tiny_tokenizer_sha256);
  EXPECT_EQ(read_bytes(reader.path() / "tokenizer.model"), testing::tiny_tokenizer);

  const std::optional<CodeMap> map = reader.code_map();
  ASSERT_EQ(map.has_value(), saved.map() != nullptr);
  if (!map) return;
  EXPECT_EQ(map->vocab_size, saved.map()->vocab_size);
  EXPECT_EQ(map->clusters, saved.map()->clusters);
  EXPECT_EQ(map->groups, saved.map()->groups);
  EXPECT_EQ(map->codes, saved.map()->codes);
  EXPECT_EQ(map->cluster_of_token, saved.map()->cluster_of_token);
  EXPECT_EQ(map->member_codes, saved.map()->member_codes);
  EXPECT_EQ(map->provenance, saved.map()->provenance);
  EXPECT_EQ(map->counted_tokens, saved.map()->counted_tokens);
}

TEST_P(Checkpoint, ShowsEveryLogicalTensorWhole) {
  TinyModel saved(config());
  saved.randomize(1, 0.3f);
  const h5::File file = h5::File::open(save_tiny(saved, folder(), {.step = 1}) / "checkpoint.h5");
  std::size_t tensors = 0;
  const auto expect_whole = [&](const std::string& name, const Parameter& p, Tensor value) {
    const h5::Dataset dataset = file.dataset(name);
    h5::Dims shape;
    for (int axis = 0; axis < p.global_shape.rank(); ++axis)
      shape.push_back(static_cast<std::uint64_t>(p.global_shape[axis]));
    EXPECT_EQ(dataset.shape(), shape) << name;
    EXPECT_EQ(bytes_of(dataset.read_all<float>()), bytes_of(value)) << name;
    ++tensors;
  };
  for (const Optimizer::OwnedSlice& slice : saved.optimizer().owned_slices()) {
    const Parameter& p = saved.store().parameters()[static_cast<std::size_t>(slice.parameter)];
    ASSERT_EQ(slice.count, p.global_shape.numel());  // one rank owns all of it
    const auto moment = [&](Tensor all) { return all.range(slice.moment_begin, slice.count); };
    expect_whole(p.name, p, saved.store().value(slice.parameter));
    expect_whole("optimizer.m." + p.name, p, moment(saved.optimizer().first_moment()));
    expect_whole("optimizer.v." + p.name, p, moment(saved.optimizer().second_moment()));
  }
  EXPECT_EQ(tensors, 3 * saved.store().parameters().size());
  const std::size_t of_map = saved.map() == nullptr ? 0 : GetParam().groups > 0 ? 2 : 1;
  EXPECT_EQ(file.names().size(), tensors + of_map);
}

INSTANTIATE_TEST_SUITE_P(Heads, Checkpoint,
                         ::testing::Values(Case{"dense", HeadKind::dense, false, 0},
                                           Case{"dense_tied", HeadKind::dense, true, 0},
                                           Case{"low_rank", HeadKind::low_rank, false, 0},
                                           Case{"low_rank_tied", HeadKind::low_rank, true, 0},
                                           Case{"adaptive", HeadKind::adaptive, false, 0},
                                           Case{"vq", HeadKind::vq, false, 4}, Case{"vq_g0", HeadKind::vq, false, 0}),
                         [](const auto& test) { return std::string(test.param.name); });

class CheckpointFolder : public ::testing::Test {
 protected:
  CheckpointFolder() : model_(tiny_model_config(HeadKind::vq)) {}

  fs::path run() const { return folder_.path(); }
  fs::path checkpoints() const { return run() / "checkpoints"; }
  fs::path save(std::int64_t step, int keep = 0) {
    return save_tiny(model_, checkpoints(), {.step = step, .samples = 2 * step, .tokens = 16 * step}, keep);
  }
  std::vector<std::string> listed() const {
    std::vector<std::string> names;
    for (const auto& checkpoint : list_checkpoints(checkpoints())) names.push_back(checkpoint.path.filename());
    return names;
  }

  TemporaryFolder folder_;
  TinyModel model_;
};

TEST_F(CheckpointFolder, KeepRemovesTheOldest) {
  for (std::int64_t step : {1, 9, 10}) save(step);
  EXPECT_THAT(listed(), ElementsAre("step-00000001", "step-00000009", "step-00000010"));
  save(11, 3);
  EXPECT_THAT(listed(), ElementsAre("step-00000009", "step-00000010", "step-00000011"));
  EXPECT_FALSE(fs::exists(checkpoints() / "step-00000001"));
  for (std::int64_t step : {12, 13}) {
    const fs::path saved = save(step, 1);
    EXPECT_THAT(listed(), ElementsAre(saved.filename().string()));
    EXPECT_EQ(CheckpointReader(saved, Verify::yes).state().step, step);
  }
}

TEST_F(CheckpointFolder, SavingAStepAgainReplacesIt) {
  save(4);
  model_.randomize(8, 0.1f);
  const CheckpointReader reader(save(4, 1), Verify::yes);
  EXPECT_THAT(listed(), ElementsAre("step-00000004"));
  TinyModel loaded(tiny_model_config(HeadKind::vq));
  load_parameters(reader, loaded.store());
  EXPECT_EQ(bytes_of(loaded.store().value(0)), bytes_of(model_.store().value(0)));
}

/// A save that was killed just before its folder got its name.
void leave_unfinished(const fs::path& complete, const fs::path& name) {
  fs::copy(complete, name, fs::copy_options::recursive);
}

TEST_F(CheckpointFolder, WhatIsUnfinishedIsNoCheckpoint) {
  const fs::path newest = save(3);
  leave_unfinished(newest, checkpoints() / "step-00000004.partial");
  leave_unfinished(newest,
                   checkpoints() / "step-00000003.partial.old");  // stopped while it replaced that step
  leave_unfinished(newest, checkpoints() / "step-00000005");
  fs::remove(checkpoints() / "step-00000005" / "manifest.json");
  fs::create_directories(checkpoints() / "step-00000006.partial");
  write_bytes(checkpoints() / "step-00000007", "a file");
  EXPECT_THAT(listed(), ElementsAre("step-00000003"));
  EXPECT_EQ(find_checkpoint(run()), newest);
  // Leftovers are in no later save's way, do not count among those that are kept, and go.
  const fs::path saved = save(4, 2);
  for (const char* name : {"step-00000004.partial", "step-00000003.partial.old", "step-00000006.partial"})
    EXPECT_FALSE(fs::exists(checkpoints() / name)) << name;
  EXPECT_THAT(listed(), ElementsAre("step-00000003", "step-00000004"));
  EXPECT_EQ(CheckpointReader(saved, Verify::yes).state().step, 4);
}

TEST_F(CheckpointFolder, FindsACheckpointOrARunsNewest) {
  const fs::path older = save(3);
  const fs::path newest = save(20);
  EXPECT_EQ(find_checkpoint(run()), newest);
  EXPECT_EQ(find_checkpoint(older), older);
  const fs::path empty = run() / "empty";
  fs::create_directories(empty);
  for (const fs::path& path : {empty, run() / "absent", older / "checkpoint.h5"}) {
    EXPECT_THAT(message_of([&] { find_checkpoint(path); }), HasSubstr(path.string() + ": neither"));
  }
  EXPECT_THAT(list_checkpoints(run() / "absent"), IsEmpty());
}

TEST_F(CheckpointFolder, AnotherModelNamesTheTensor) {
  const CheckpointReader reader(save(3), Verify::yes);
  const auto message = [&](const Config& config) {
    TinyModel other(config);
    return message_of([&] { load_parameters(reader, other.store()); });
  };
  Config wide = tiny_model_config(HeadKind::vq);
  wide.model.d_model = 24;
  EXPECT_THAT(message(wide), AllOf(HasSubstr("step-00000003"),
                                   HasSubstr("model.embed_tokens.weight has shape (61, 16) instead of (61, 24)")));
  Config deep = tiny_model_config(HeadKind::vq);
  deep.model.n_layers = 2;
  EXPECT_THAT(message(deep), HasSubstr("no tensor model.layers.1."));
  EXPECT_THAT(message(tiny_model_config(HeadKind::dense)), HasSubstr("no tensor lm_head."));
  Config coarse = tiny_model_config(HeadKind::vq);
  vq(coarse).clusters = 6;
  EXPECT_THAT(message(coarse), HasSubstr("vq_head.codebook has shape (5, 16) instead of (6, 16)"));

  TinyModel other(wide);
  EXPECT_THAT(message_of([&] { reader.load_training_state(other.backend(), other.store(), other.optimizer()); }),
              HasSubstr("tensor optimizer.m.model.embed_tokens.weight has shape"));
}

}  // namespace
}  // namespace vqlm
