// A session that no launcher connected with others. Sessions of several ranks: tests/dist/*_ranks.cpp.
#include "dist/mpi_session.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "core/error.h"

namespace vqlm {
namespace {

class AloneSessionTest : public ::testing::Test {
 protected:
  AloneSessionTest() { ::setenv("OMPI_COMM_WORLD_SIZE", "1", 1); }
  ~AloneSessionTest() override { ::unsetenv("OMPI_COMM_WORLD_SIZE"); }
};

TEST_F(AloneSessionTest, MakesNoCallOfMpi) {
  const MpiSession session;
  EXPECT_FALSE(session.started());
  EXPECT_EQ(session.thread_level(), "not started");
  EXPECT_NE(session.mpi_version().find("MPI"), std::string::npos) << session.mpi_version();
}

// MPI_Init works once in a process, so a second session shows that the first one left MPI alone.
TEST_F(AloneSessionTest, CanBeMadeTwice) {
  { const MpiSession first; }
  const MpiSession second;
  EXPECT_EQ(second.size(), 1);
}

TEST_F(AloneSessionTest, IsRankZeroOfOneOnItsNode) {
  const MpiSession session;
  EXPECT_EQ(session.rank(), 0);
  EXPECT_EQ(session.size(), 1);
  EXPECT_EQ(session.local_rank(), 0);
  EXPECT_EQ(session.local_size(), 1);
}

TEST_F(AloneSessionTest, GathersAndCountsItself) {
  const MpiSession session;
  EXPECT_EQ(session.gather_texts("a b"), std::vector<std::string>{"a b"});
  EXPECT_EQ(session.gather_texts_of_node(""), std::vector<std::string>{""});
  EXPECT_EQ(session.count_ranks(true), 1);
  EXPECT_EQ(session.count_ranks(false), 0);
}

TEST_F(AloneSessionTest, SplitsIntoAGroupOfOneOverHostMemory) {
  const MpiSession session;
  const auto group = session.split(3, 5, "tensor");
  EXPECT_EQ(group->name(), "tensor");
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->size(), 1);
  std::vector<float> in{1, 2, 3}, out(3);
  const Tensor from(in.data(), DType::f32, {3}), to(out.data(), DType::f32, {3});
  group->all_gather(to, from, Stream{});
  EXPECT_EQ(out, in);
  out.assign(3, 0);
  group->reduce_scatter(to, from, Reduce::sum, Stream{});
  EXPECT_EQ(out, in);
  group->all_reduce(from, Reduce::sum, Stream{});
  EXPECT_EQ(in, (std::vector<float>{1, 2, 3}));
  group->barrier();
}

TEST_F(AloneSessionTest, AnExceptionPassesThrough) {
  const auto leave = [] {
    const MpiSession session;
    throw Error("planted");
  };
  EXPECT_THROW(leave(), Error);
}

TEST_F(AloneSessionTest, AbortSaysWhyAndEndsWithTheCode) {
  EXPECT_EXIT(MpiSession().abort("planted failure", 7), ::testing::ExitedWithCode(7), "rank 0: planted failure");
}

}  // namespace
}  // namespace vqlm
