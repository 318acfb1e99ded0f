// Which head a configuration has, and the keys that go with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/data/temporary_folder.h"
#include "tests/train/config_errors.h"
#include "train/config/config.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ConfigHeadTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    std::string path = folder_.file("config-" + std::to_string(files_++) + ".toml");
    std::ofstream(path) << text;
    return path;
  }

 private:
  TemporaryFolder folder_;
  int files_ = 0;
};

TEST_F(ConfigHeadTest, TheDefaultIsTheRecommendedHead) {
  const Config config;
  const auto& head = std::get<VqHeadConfig>(config.head);
  EXPECT_TRUE(head.by_embedding() && head.member_mean() && head.input_codes);
  EXPECT_EQ(config.optim.embedding.lr_ratio, 4);
  EXPECT_EQ(to_toml(load_config({}, {"head.kind=vq"})), to_toml(config));
}

TEST_F(ConfigHeadTest, AWrittenConfigurationHasTheKeysOfItsHeadOnly) {
  const auto head_keys = [](const std::vector<std::string>& overrides) {
    const std::string text = to_toml(load_config({}, overrides));
    const std::size_t begin = text.find("[head]\n") + 7;
    return text.substr(begin, text.find("\n\n", begin) + 1 - begin);
  };
  EXPECT_EQ(head_keys({"head.kind=dense"}),
            "kind = \"dense\"\nbias = true\nfuture = 0\nfuture_weight = 0.3\nz_loss = 0.0\nsoftcap = 0.0\n");
  EXPECT_EQ(head_keys({"head.kind=low_rank"}),
            "kind = \"low_rank\"\nbias = true\nfuture = 0\nfuture_weight = 0.3\nz_loss = 0.0\nrank = 64\n");
  EXPECT_EQ(head_keys({"head.kind=adaptive"}),
            "kind = \"adaptive\"\nbias = true\nfuture = 0\nfuture_weight = 0.3\ncutoffs = []\ntail_ratio = 4\n");
  EXPECT_EQ(head_keys({"head.kind=adaptive", "head.cutoffs=[ 5,17 ]", "head.tail_ratio=2"}),
            "kind = \"adaptive\"\nbias = true\nfuture = 0\nfuture_weight = 0.3\ncutoffs = [5, 17]\ntail_ratio = 2\n");
  EXPECT_EQ(
      head_keys({"head.members=codes", "head.learning=ema", "head.input_codes=false"}),
      "kind = \"vq\"\nbias = true\nfuture = 0\nfuture_weight = 0.3\nclusters = 128\nmembers = \"codes\"\ngroups = 32\ncodes = 128\n"
      "input_codes = false\nmap = \"corpus\"\nown_tokens = 0\nlearning = \"ema\"\ncommitment = 0.25\n"
      "ema_decay = 0.99\n");
  // The published method under its earlier name.
  EXPECT_EQ(head_keys({"head.members=codes", "head.groups=0", "head.codes=5"}), head_keys({"head.members=none"}));
}

TEST_F(ConfigHeadTest, AnotherKindOfHeadDropsTheFilesKeysOfItsOwn) {
  const auto vq = write(
      "[head]\nkind = \"vq\"\nbias = false\nmembers = \"embedding\"\nmember_mean = false\ninput_codes = false\n"
      "clusters = 8\n");
  Config config = load_config(vq, {"head.kind=dense"});
  EXPECT_FALSE(std::get<DenseHeadConfig>(config.head).bias);  // of both kinds
  EXPECT_NO_THROW(resolve(config, 16000, 1));
  EXPECT_EQ(std::get<VqHeadConfig>(load_config(vq, {"head.kind=dense", "head.kind=vq"}).head).clusters, 8);
  const auto by_codes = std::get<VqHeadConfig>(load_config(vq, {"head.members=codes", "head.groups=4"}).head);
  EXPECT_EQ(by_codes.clusters, 8);
  EXPECT_EQ(by_codes.groups(), 4);
  EXPECT_FALSE(by_codes.input_codes);

  const auto tied = write("[model]\ntie_embeddings = true\n[head]\nkind = \"dense\"\n");
  config = load_config(tied, {"head.kind=vq", "head.clusters=5"});
  EXPECT_FALSE(config.model.tie_embeddings);
  EXPECT_EQ(std::get<VqHeadConfig>(config.head).clusters, 5);
  EXPECT_NO_THROW(resolve(config, 16000, 1));
}

TEST_F(ConfigHeadTest, KeysThatTheChosenHeadHasNotAreRefused) {
  const auto refusal = [&](const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto path = write(text);
    return usage_error([&] { load_config(path, overrides); });
  };
  EXPECT_THAT(refusal("[head]\nclusters = 64\nkind = \"dense\"\n"),
              AllOf(HasSubstr(":2: head.clusters = 64 with head.kind = \"dense\""), HasSubstr("head.kind = \"vq\""),
                    HasSubstr("leave head.clusters out")));
  EXPECT_THAT(refusal("[model]\ntie_embeddings = true\n"),
              AllOf(HasSubstr("model.tie_embeddings"), HasSubstr("head.kind = \"dense\"")));
  EXPECT_THAT(refusal("[head]\ngroups = 8\n"), HasSubstr("head.groups = 8 with head.members = \"embedding\""));
  EXPECT_THAT(refusal("[head]\nmembers = \"codes\"\nmember_mean = true\n"), HasSubstr("\"embedding\""));
  EXPECT_THAT(refusal("[head]\nema_decay = 0.9\nlearning = \"commitment\"\n"), HasSubstr("head.learning = \"ema\""));
  // What --set says itself is not dropped.
  EXPECT_THAT(refusal("", {"head.input_codes=true", "head.kind=dense"}), HasSubstr("--set: head.input_codes = true"));
  EXPECT_THAT(refusal("[head]\nkind = \"dense\"\n", {"head.clusters=5"}), HasSubstr("--set: head.clusters = 5"));
  EXPECT_THAT(refusal("[head]\nrank = 5\n"), HasSubstr("set head.kind = \"low_rank\""));
  EXPECT_THAT(refusal("[head]\ncutoffs = [5]\n"),
              HasSubstr("head.cutoffs = [5] with head.kind = \"vq\": set head.kind = \"adaptive\""));
  EXPECT_THAT(refusal("[head]\nkind = \"adaptive\"\ncutoffs = 5\n"),
              HasSubstr("head.cutoffs must be a list of whole numbers"));
  EXPECT_THAT(refusal("[head]\nkind = \"adaptive\"\ncutoffs = [5, 1.5]\n"), HasSubstr("must hold whole numbers alone"));
  EXPECT_THAT(refusal("", {"head.kind=adaptive", "head.cutoffs=5,6"}), HasSubstr("head.cutoffs = 5,6: write a list"));
  EXPECT_THAT(refusal("[model]\ntie_embeddings = true\n[head]\nkind = \"adaptive\"\n"),
              HasSubstr("model.tie_embeddings = true with head.kind = \"adaptive\""));
}

// Runs of earlier versions: all keys, whatever the head, or without those that came later.
TEST_F(ConfigHeadTest, WhatEarlierVersionsSavedMeansWhatItDid) {
  const Config dense = load_saved_config(write(
      "[model]\ntie_embeddings = false\n[head]\nkind = \"dense\"\nclusters = 128\ngroups = 32\nema_decay = 0.99\n"));
  EXPECT_EQ(kind_of(dense.head), HeadKind::dense);
  const Config low_rank = load_saved_config(write("[head]\nkind = \"low_rank\"\nrank = 7\nz_loss = 0.5\n"));
  EXPECT_EQ(std::get<LowRankHeadConfig>(low_rank.head).rank, 7);
  EXPECT_EQ(z_loss_of(low_rank.head), 0.5f);
  const Config adaptive = load_saved_config(write("[head]\nkind = \"adaptive\"\ncutoffs = [7, 9]\n"));
  EXPECT_EQ(adaptive_of(adaptive.head)->cutoffs, (std::vector<std::int64_t>{7, 9}));
  const Config config = load_saved_config(
      write("[model]\ntie_embeddings = false\n[head]\nkind = \"vq\"\nclusters = 9\ngroups = 4\ncodes = 7\n"));
  const auto& vq = std::get<VqHeadConfig>(config.head);
  EXPECT_EQ(vq.groups(), 4);
  EXPECT_EQ(vq.codes(), 7);
  EXPECT_FALSE(vq.input_codes);
  EXPECT_EQ(config.optim.embedding.lr_ratio, 1);
  EXPECT_EQ(config.data.counted_text, CountedText::all);
  EXPECT_EQ(config.run.counted_samples, 0);
  const Config rows = load_saved_config(write("[head]\nkind = \"vq\"\nmembers = \"embedding\"\n"));
  EXPECT_TRUE(std::get<VqHeadConfig>(rows.head).by_embedding());
  EXPECT_FALSE(std::get<VqHeadConfig>(rows.head).member_mean());
  // A head from the command line is what it is now.
  const Config now = load_saved_config(write("[head]\nkind = \"dense\"\nclusters = 7\n"), {"head.kind=vq"});
  EXPECT_TRUE(std::get<VqHeadConfig>(now.head).member_mean());
  EXPECT_TRUE(std::get<VqHeadConfig>(now.head).input_codes);
  EXPECT_EQ(std::get<VqHeadConfig>(now.head).clusters, 7);
  const Config other =
      load_saved_config(write("[head]\nkind = \"vq\"\nmembers = \"codes\"\ngroups = 4\n"), {"head.members=embedding"});
  EXPECT_TRUE(std::get<VqHeadConfig>(other.head).member_mean());
}

TEST_F(ConfigHeadTest, AFileInARunsFolderIsReadAsWhatItsVersionSaved) {
  const TemporaryFolder run;
  std::ofstream(run.file("config.toml")) << "[head]\nkind = \"dense\"\nclusters = 128\ngroups = 32\n";
  EXPECT_THROW(load_config(run.file("config.toml")), UsageError);  // no run yet
  std::ofstream(run.file("metrics.jsonl")) << "";
  EXPECT_EQ(kind_of(load_config(run.file("config.toml")).head), HeadKind::dense);
  EXPECT_THROW(load_config(run.file("config.toml"), {"head.clusters=5"}), UsageError);
}

}  // namespace
}  // namespace vqlm
