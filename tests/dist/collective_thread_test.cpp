// The thread that makes collectives beside the main one, also over a group whose second reduction fails.
#include "dist/collective_thread.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <atomic>
#include <memory>
#include <vector>

#include "core/error.h"
#include "dist/self_communicator.h"
#include "tests/train/forwarding_communicator.h"

namespace vqlm {
namespace {

class FailingGroup : public testing::ForwardingCommunicator {
 public:
  /// failing: which reduction fails, from 1; 0: none.
  explicit FailingGroup(int failing)
      : ForwardingCommunicator(std::make_unique<SelfCommunicator>("data")), failing_(failing) {}
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override {
    if (++calls == failing_) throw Error(fmt::format("planted failure of reduction {}", calls.load()));
    return ForwardingCommunicator::reduce_scatter(out, in, op, stream);
  }
  void abandon() override { ++abandons; }

  std::atomic<int> calls = 0, abandons = 0;

 private:
  int failing_;
};

class CollectiveThreadTest : public ::testing::Test {
 protected:
  Tensor tensor(std::vector<float>& x) { return {x.data(), DType::f32, {static_cast<std::int64_t>(x.size())}}; }
  void start_three(CollectiveThread& thread) {
    for (auto& [out, in] : pieces) thread.reduce_scatter(tensor(out), tensor(in));
  }
  struct Piece {
    std::vector<float> out = {0, 0}, in = {1, 2};
  };
  Piece pieces[3];
};

TEST_F(CollectiveThreadTest, ReducesAllThatWasBegunAgainAndAgain) {
  FailingGroup group(0);
  {
    CollectiveThread thread(group);
    for (int step = 0; step < 3; ++step) {
      for (Piece& piece : pieces) piece.in[1] = static_cast<float>(step + 2);
      start_three(thread);
      thread.finish("reductions");
      for (const Piece& piece : pieces) EXPECT_EQ(piece.out, piece.in);
    }
  }
  EXPECT_EQ(group.calls, 9);
  EXPECT_EQ(group.abandons, 0);
}

// Gathers and reductions take turns as they were begun, and each gather may be waited for alone.
TEST_F(CollectiveThreadTest, GathersAreWaitedForOneByOne) {
  FailingGroup group(0);
  CollectiveThread thread(group);
  for (int step = 0; step < 3; ++step) {
    std::int64_t numbers[3];
    for (std::size_t i = 0; i < 3; ++i) {
      pieces[i].in[0] = static_cast<float>(10 * step) + static_cast<float>(i);
      numbers[i] = thread.all_gather(tensor(pieces[i].out), tensor(pieces[i].in));
    }
    for (std::size_t i = 0; i < 3; ++i) {
      thread.finish(numbers[i], "gathers");
      EXPECT_EQ(pieces[i].out, pieces[i].in) << i;
    }
    thread.finish(numbers[0], "gathers");  // long done
    start_three(thread);
    thread.finish("reductions");
  }
  EXPECT_EQ(group.calls, 9);
}

TEST_F(CollectiveThreadTest, AfterAFailureNothingBeginsAndTheGroupIsGivenUp) {
  FailingGroup group(2);
  {
    CollectiveThread thread(group);
    start_three(thread);
    for (int again = 0; again < 2; ++again) {
      try {
        thread.finish("reductions");
        ADD_FAILURE() << "the failure was lost";
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "planted failure of reduction 2");
      }
      start_three(thread);
    }
  }
  EXPECT_EQ(group.calls, 2);
  EXPECT_EQ(group.abandons, 1);
}

}  // namespace
}  // namespace vqlm
