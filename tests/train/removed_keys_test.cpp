// Keys of earlier versions, as their configurations and checkpoints still name them.
#include "train/config/removed_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/train/config_errors.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// What load_config says to overrides: its error, and its warnings.
struct Said {
  std::string error, warnings;
};

Said said_to(const std::vector<std::string>& overrides) {
  log::set_level(log::level::info);
  ::testing::internal::CaptureStdout();  // where the default logger writes
  Said said;
  said.error = usage_error([&] { load_config({}, overrides); });
  said.warnings = ::testing::internal::GetCapturedStdout();
  return said;
}

TEST(RemovedKeys, ArePassedOverWhereTheFeatureWasOff) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{"head.member_rank=0", "head.kind=vq", "head.members=embedding"},
        {"head.member_rank=96", "model.d_model=96", "head.kind=vq", "head.members=embedding"},
        {"head.member_rank=64", "head.kind=vq", "head.members=codes"},
        {"head.member_rank=64", "head.kind=dense"},
        {"head.member_scale=1", "head.kind=vq", "head.members=embedding"},
        {"head.member_scale=4.0", "head.kind=vq", "head.members=codes"},
        {"head.dead_code_share=0.05", "head.kind=vq", "head.learning=gradient"},
        {"head.dead_code_share=0", "head.kind=vq", "head.members=codes", "head.learning=ema"},
        {"head.refit_every=4", "head.refit_until=8", "head.refit_dims=64", "head.kind=vq", "head.map=corpus"}}) {
    const Said said = said_to(overrides);
    EXPECT_EQ(said.error, "") << overrides.front();
    EXPECT_EQ(said.warnings, "") << overrides.front();
  }
}

TEST(RemovedKeys, OfAnotherModelAreRefused) {
  EXPECT_THAT(said_to({"head.member_rank=64", "model.d_model=96", "head.kind=vq", "head.members=embedding"}).error,
              AllOf(HasSubstr("--set: head.member_rank = 64"), HasSubstr("train the model anew")));
  EXPECT_THAT(said_to({"head.member_scale=4", "head.kind=vq", "head.members=embedding"}).error,
              AllOf(HasSubstr("head.member_scale = 4"), HasSubstr("optim.embedding_lr_ratio")));
}

TEST(RemovedKeys, OfAnotherTrainingAreNamedInAWarning) {
  const Said said = said_to({"head.dead_code_share=0.05", "head.members=codes", "head.learning=ema"});
  EXPECT_EQ(said.error, "");
  EXPECT_THAT(said.warnings, AllOf(HasSubstr("head.dead_code_share = 0.05"), HasSubstr("not revived any more")));
}

TEST(RemovedKeys, OfAFileAreNamedWithItsLine) {
  const TemporaryFolder folder;
  const std::string file = folder.file("config.toml");
  std::ofstream(file) << "[head]\nkind = \"vq\"\nmember_scale = 4.0\nmembers = \"embedding\"\nmember_rank = 0\n";
  EXPECT_THAT(usage_error([&] { load_config(file, {}); }), HasSubstr("config.toml:3: head.member_scale = 4"));
}

TEST(RemovedKeys, ARenamedKeyMeansTheNewOne) {
  EXPECT_EQ(load_config({}, {"optim.kind=muon", "optim.muon_lr_ratio=2"}).optim.blocks.lr_ratio, 2);
  const TemporaryFolder folder;
  const std::string file = folder.file("config.toml");
  std::ofstream(file) << "[optim]\nkind = \"muon\"\nmuon_lr_ratio = 2.0\n";
  EXPECT_EQ(load_saved_config(file).optim.blocks.lr_ratio, 2);
}

TEST(RemovedKeys, OtherUnknownKeysStayUnknown) {
  EXPECT_THAT(said_to({"head.member_rang=64"}).error, HasSubstr("unknown key head.member_rang"));
  EXPECT_TRUE(is_removed_key("head.refit_dims"));
  EXPECT_FALSE(is_removed_key("head.map"));
}

}  // namespace
}  // namespace vqlm
