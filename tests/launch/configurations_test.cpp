// The configurations in configs/ at the numbers of ranks at which the documents and --help start them.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "train/config/config.h"

namespace vqlm {
namespace {

struct Start {
  std::string config;
  int ranks;
  std::vector<std::string> overrides = {};
};

/// Where each is written stands behind it.
const std::vector<Start> starts = {
    {"smoke", 1},                              // its own first lines
    {"smoke", 4},                              // README.md, vqlm --help
    {"smoke", 4, {"head.kind=dense"}},         // README.md
    {"demo-vq", 1, {"parallel.tensor=1"}},     // vqlm bench step --help
    {"demo-vq", 2},                            // vqlm train --help
    {"demo-vq", 4},                            // launch/demo.sh, vqlm train --help
    {"demo-dense", 1, {"parallel.tensor=1"}},  // as demo-vq
    {"demo-dense", 2},                         // as demo-vq
    {"demo-dense", 4},                         // launch/demo.sh
    {"demo-tied", 1, {"parallel.tensor=1"}},   // as demo-vq
    {"demo-tied", 2},                          // as demo-vq
    {"demo-tied", 4},                          // launch/demo.sh
    {"ablation", 1},                           // launch/ablation.sh
    {"ablation", 2},                           // launch/ablation.sh --ranks 2
    {"ablation-tables", 1},                    // its own first lines
    {"gpt2-small-vq", 8},                      // its own first lines
    {"gpt2-small-vq", 32},                     // launch/train.sbatch: 4 nodes of 8
    {"gpt2-small-dense", 8},                   // its own first lines
    {"gpt2-small-dense", 32},                  // as gpt2-small-vq
    {"1b5-vq", 64},                            // its own first lines
    {"1b5-dense", 64},                         // its own first lines
    {"7b-vq", 8},                              // its own first lines
    {"7b-dense", 8},                           // its own first lines
};

TEST(Configurations, FitTheRanksTheyAreStartedWith) {
  for (const Start& start : starts) {
    for (const int vocabulary : {16000, 32000, 50257}) {
      SCOPED_TRACE(testing::Message() << start.config << " on " << start.ranks << " ranks, V = " << vocabulary);
      Config config = load_config(VQLM_SOURCE_DIR "/configs/" + start.config + ".toml", start.overrides);
      EXPECT_NO_THROW(resolve(config, vocabulary, start.ranks));
      EXPECT_EQ(config.parallel.data * config.parallel.tensor, start.ranks);
    }
  }
}

TEST(Configurations, TakeEitherKindOfHeadFromTheCommandLine) {
  for (const Start& start : starts) {
    for (const std::string kind : {"head.kind=dense", "head.kind=vq"}) {
      SCOPED_TRACE(start.config + " with " + kind);
      std::vector<std::string> overrides = start.overrides;
      overrides.push_back(kind);
      Config config = load_config(VQLM_SOURCE_DIR "/configs/" + start.config + ".toml", overrides);
      EXPECT_NO_THROW(resolve(config, 50257, start.ranks));
    }
  }
}

TEST(Configurations, AreAllInTheTable) {
  std::set<std::string> named;
  for (const Start& start : starts) named.insert(start.config);
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(VQLM_SOURCE_DIR "/configs")) {
    if (entry.path().extension() == ".toml") found.insert(entry.path().stem());
  }
  EXPECT_EQ(found, named);
}

}  // namespace
}  // namespace vqlm
