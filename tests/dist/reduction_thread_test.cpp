// The thread that reduces beside the main one, over a group whose second reduction fails.
#include "dist/reduction_thread.h"

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

class ReductionThreadTest : public ::testing::Test {
 protected:
  Tensor tensor(std::vector<float>& x) { return {x.data(), DType::f32, {static_cast<std::int64_t>(x.size())}}; }
  void start_three(ReductionThread& thread) {
    for (auto& [out, in] : pieces) thread.start(tensor(out), tensor(in));
  }
  struct Piece {
    std::vector<float> out = {0, 0}, in = {1, 2};
  };
  Piece pieces[3];
};

TEST_F(ReductionThreadTest, ReducesAllThatWasBegunAgainAndAgain) {
  FailingGroup group(0);
  {
    ReductionThread thread(group);
    for (int step = 0; step < 3; ++step) {
      for (Piece& piece : pieces) piece.in[1] = static_cast<float>(step + 2);
      start_three(thread);
      thread.finish();
      for (const Piece& piece : pieces) EXPECT_EQ(piece.out, piece.in);
    }
  }
  EXPECT_EQ(group.calls, 9);
  EXPECT_EQ(group.abandons, 0);
}

TEST_F(ReductionThreadTest, AfterAFailureNothingBeginsAndTheGroupIsGivenUp) {
  FailingGroup group(2);
  {
    ReductionThread thread(group);
    start_three(thread);
    for (int again = 0; again < 2; ++again) {
      try {
        thread.finish();
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
