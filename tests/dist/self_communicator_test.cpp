#include "dist/self_communicator.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/cpu/cpu_backend.h"

namespace vqlm {
namespace {

class SelfCommunicatorTest : public ::testing::Test {
 protected:
  SelfCommunicatorTest() { std::iota(in_.begin(), in_.end(), 1.0f); }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  SelfCommunicator self_{*backend_, "data"};
  std::vector<float> in_ = std::vector<float>(5);
  std::vector<float> out_ = std::vector<float>(5, -1.0f);
  Tensor in() { return Tensor(in_.data(), DType::f32, {5}); }
  Tensor out() { return Tensor(out_.data(), DType::f32, {5}); }
};

TEST_F(SelfCommunicatorTest, IsAloneUnderItsName) {
  EXPECT_EQ(self_.rank(), 0);
  EXPECT_EQ(self_.size(), 1);
  EXPECT_EQ(self_.name(), "data");
}

TEST_F(SelfCommunicatorTest, ReduceScatterCopies) {
  self_.reduce_scatter(out(), in(), Reduce::sum, backend_->compute_stream());
  EXPECT_EQ(out_, in_);
}

TEST_F(SelfCommunicatorTest, AllGatherCopies) {
  self_.all_gather(out(), in(), backend_->compute_stream());
  EXPECT_EQ(out_, in_);
}

TEST_F(SelfCommunicatorTest, AllToAllCopies) {
  self_.all_to_all(out(), in(), backend_->compute_stream());
  EXPECT_EQ(out_, in_);
}

TEST_F(SelfCommunicatorTest, AllToAllOfUnevenBlocksCopies) {
  const std::vector<std::int64_t> counts = {3};
  self_.all_to_all_v(out().range(2, 3), counts, in().range(1, 3), counts, backend_->compute_stream());
  EXPECT_EQ(out_, (std::vector<float>{-1, -1, 2, 3, 4}));
}

TEST_F(SelfCommunicatorTest, InPlaceCallsChangeNothing) {
  const auto before = in_;
  self_.all_reduce(in(), Reduce::sum, Stream{});
  self_.all_reduce(in(), Reduce::max, Stream{});
  self_.broadcast(in(), 0, Stream{});
  self_.reduce_scatter(in(), in(), Reduce::sum, Stream{});
  self_.all_gather(in(), in(), Stream{});
  self_.barrier();
  EXPECT_EQ(in_, before);
}

TEST_F(SelfCommunicatorTest, NothingToCopy) {
  self_.all_gather(out().range(0, 0), in().range(0, 0), Stream{});
  self_.all_gather(Tensor{}, Tensor{}, Stream{});
  EXPECT_EQ(out_, std::vector<float>(5, -1.0f));
}

}  // namespace
}  // namespace vqlm
