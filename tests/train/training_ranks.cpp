// The same run on every process grid, and continued across grids.
#include <gtest/gtest.h>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/ranks.h"
#include "tests/train/tiny_run.h"
#include "train/host_collectives.h"

namespace vqlm {
namespace {

using testing::session;
using testing::tiny_config;
using testing::train_losses;

struct GridSize {
  int data;
  int tensor;
};

/// The grids of this many ranks over which 4 heads divide.
std::vector<GridSize> grids_of(int ranks) {
  std::vector<GridSize> grids;
  for (int tensor : {1, 2, 4}) {
    if (ranks % tensor == 0) grids.push_back({ranks / tensor, tensor});
  }
  return grids;
}

class Training : public ::testing::TestWithParam<HeadKind> {
 protected:
  Training() : backend_(make_cpu_backend(1)), alone_(*backend_), world_(session(), *backend_, 0, 1) {
    log::set_level(log::level::warn);
    shards_ = shared_path("shards");
    if (session().rank() == 0) {
      std::filesystem::create_directories(shards_);
      testing::write_zipf_shards(shards_, "train", 120);
      testing::write_zipf_shards(shards_, "heldout", 6);
    }
    world_.world().barrier();
  }
  // The folder is the first rank's: nobody may leave before all are done with it.
  ~Training() override { world_.world().barrier(); }

  /// A path in the first rank's temporary folder, known to all ranks.
  std::filesystem::path shared_path(const std::string& name) {
    const std::string own = folder_.path();
    std::vector<std::uint8_t> bytes(own.begin(), own.end());
    broadcast_from(*backend_, world_.world(), 0, bytes);
    return std::filesystem::path(std::string(bytes.begin(), bytes.end())) / name;
  }

  /// Losses of the whole run on one rank alone; every rank computes them for itself.
  std::vector<double> losses_alone() {
    return train_losses(*backend_, alone_,
                        tiny_config(GetParam(), shards_, std::filesystem::path(folder_.path()) / "alone"));
  }

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid alone_;
  ProcessGrid world_;
  std::filesystem::path shards_;
};

void expect_close(const std::vector<double>& actual, const std::vector<double>& expected, std::size_t first) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = first; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-5 * expected[i]) << "step " << i + 1;
  }
}

TEST_P(Training, LossesAgreeOnEveryGrid) {
  const std::vector<double> expected = losses_alone();
  for (const GridSize size : grids_of(session().size())) {
    const ProcessGrid grid(session(), *backend_, size.data, size.tensor);
    const std::string name = std::to_string(size.data) + "x" + std::to_string(size.tensor);
    SCOPED_TRACE(name);
    const auto losses = train_losses(*backend_, grid, tiny_config(GetParam(), shards_, shared_path(name)));
    if (session().rank() > 0) continue;
    expect_close(losses, expected, 0);
    EXPECT_LT(losses.back(), losses.front());  // it trains
  }
}

TEST_P(Training, ResumedOnTheSameGridIsBitIdentical) {
  for (const GridSize size : grids_of(session().size())) {
    const ProcessGrid grid(session(), *backend_, size.data, size.tensor);
    const std::string name = std::to_string(size.data) + "x" + std::to_string(size.tensor);
    SCOPED_TRACE(name);
    const auto whole =
        train_losses(*backend_, grid, tiny_config(GetParam(), shards_, shared_path(name + "-whole")));
    const Config config = tiny_config(GetParam(), shards_, shared_path(name + "-cut"));
    train_losses(*backend_, grid, config, false, 7);
    const auto resumed = train_losses(*backend_, grid, config, true);
    EXPECT_EQ(resumed, whole);
  }
}

TEST_P(Training, ResumedOnAnotherGridContinues) {
  const std::vector<double> expected = losses_alone();
  const Config config = tiny_config(GetParam(), shards_, shared_path("moving"));
  const auto sizes = grids_of(session().size());
  const ProcessGrid first(session(), *backend_, sizes.front().data, sizes.front().tensor);
  const ProcessGrid second(session(), *backend_, sizes.back().data, sizes.back().tensor);
  train_losses(*backend_, first, config, false, 9);
  const auto losses = train_losses(*backend_, second, config, true);
  if (session().rank() == 0) expect_close(losses, expected, 9);
}

INSTANTIATE_TEST_SUITE_P(Heads, Training, ::testing::Values(HeadKind::dense, HeadKind::vq),
                         [](const auto& test) {
                           return std::string(test.param == HeadKind::vq ? "vq" : "dense");
                         });

}  // namespace
}  // namespace vqlm
