#include "dist/launcher.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace vqlm {
namespace {

/// Every variable that launchers set, unset; the process that runs the tests may have been started by one.
class LauncherTest : public ::testing::Test {
 protected:
  LauncherTest() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                             "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}) {
      if (const char* value = std::getenv(name)) before_.emplace_back(name, value);
      ::unsetenv(name);
    }
  }
  ~LauncherTest() override {
    for (const auto& name : set_) ::unsetenv(name.c_str());
    for (const auto& [name, value] : before_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  void announce(const char* name, const char* value) {
    ::setenv(name, value, 1);
    set_.emplace_back(name);
  }

 private:
  std::vector<std::pair<std::string, std::string>> before_;
  std::vector<std::string> set_;
};

TEST_F(LauncherTest, NobodyStartedThisProcess) {
  EXPECT_EQ(launcher_rank(), 0);
  EXPECT_EQ(launcher_ranks(), 1);
  EXPECT_FALSE(launcher_may_connect_ranks());
}

TEST_F(LauncherTest, MpirunOfOneRankConnectsNothing) {
  announce("OMPI_COMM_WORLD_SIZE", "1");
  announce("OMPI_COMM_WORLD_RANK", "0");
  announce("PMIX_RANK", "0");
  EXPECT_EQ(launcher_ranks(), 1);
  EXPECT_FALSE(launcher_may_connect_ranks());
}

TEST_F(LauncherTest, MpirunOfThreeRanks) {
  announce("OMPI_COMM_WORLD_SIZE", "3");
  announce("OMPI_COMM_WORLD_RANK", "2");
  EXPECT_EQ(launcher_rank(), 2);
  EXPECT_EQ(launcher_ranks(), 3);
  EXPECT_TRUE(launcher_may_connect_ranks());
}

TEST_F(LauncherTest, MpirunInsideAStepOfSlurmKnowsBetter) {
  announce("SLURM_STEP_NUM_TASKS", "2");
  announce("OMPI_COMM_WORLD_SIZE", "1");
  EXPECT_FALSE(launcher_may_connect_ranks());
}

TEST_F(LauncherTest, ABatchScriptOfSlurmIsAlone) {
  announce("SLURM_PROCID", "0");
  EXPECT_EQ(launcher_ranks(), 1);
  EXPECT_FALSE(launcher_may_connect_ranks());
}

TEST_F(LauncherTest, ARankWithoutANumberMayHaveOthersBesideIt) {
  for (const char* name : {"PMIX_RANK", "PMI_RANK"}) {
    announce(name, "0");
    EXPECT_EQ(launcher_ranks(), 1) << name;
    EXPECT_TRUE(launcher_may_connect_ranks()) << name;
    ::unsetenv(name);
  }
}

TEST_F(LauncherTest, OnlyWholeNumbersCount) {
  for (const char* text : {"", "two", "2x", "-2"}) {
    announce("OMPI_COMM_WORLD_SIZE", text);
    EXPECT_EQ(number_from_environment("OMPI_COMM_WORLD_SIZE"), -1) << text;
    EXPECT_EQ(launcher_ranks(), 1) << text;
  }
}

}  // namespace
}  // namespace vqlm
