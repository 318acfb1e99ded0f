// What the planning back end counts for ops whose traffic is not their operands' sizes.
#include <gtest/gtest.h>

#include "train/engine/planning_backend.h"

namespace vqlm {
namespace {

/// Two clusters of three tokens each, d = 4, three rows.
class PlannedMembersTest : public ::testing::Test {
 protected:
  Tensor make(Shape shape, DType dtype = DType::f32) {
    buffers.push_back(backend.allocate(static_cast<std::size_t>(shape.numel()) * size_of(dtype), MemoryUse::workspace));
    return Tensor(buffers.back().data(), dtype, shape);
  }
  Tensor ids(std::int64_t count) { return make({count}, DType::i32); }
  const OpCount& counted() const { return machine.ops().back(); }

  PlannedMachine machine{StatedRates{}};
  PlanningBackend backend{machine, DType::f32};
  std::vector<Buffer> buffers;
  CodeMapView map{ids(6), ids(6), ids(6), ids(3), make({6, 2}, DType::u8), {}, 3};
  Tensor h = make({3, 4}), vectors = make({6, 4}), bias = make({6});
};

TEST_F(PlannedMembersTest, OwnVectorsAreReadInPlaceAndCodesAreNot) {
  backend.run(MemberEntropy{.nll = make({3}),
                            .gradients = {make({3, 4}), make({6, 4}), bias},
                            .h = h,
                            .targets = ids(3),
                            .order = ids(3),
                            .row_begin = ids(3),
                            .member_codebook = vectors,
                            .token_bias = bias,
                            .map = map});
  EXPECT_EQ(counted().flops, 3 * 2 * 12 * 3);
  // nll, h, targets, order, row_begin, vectors, biases, members, member_begin; dh, dvectors, dbias.
  EXPECT_EQ(counted().bytes_read, 4 * (3 + 12 + 3 + 3 + 3 + 24 + 6 + 6 + 3 + 12 + 24 + 6));
  EXPECT_EQ(counted().bytes_written, 4 * (3 + 12 + 24 + 6));

  backend.run(MemberLogProbs{.log_probs = make({3, 6}),
                             .h = h,
                             .code_log_probs = make({3, 2}),
                             .member_codebook = vectors,
                             .token_bias = bias,
                             .map = map});
  EXPECT_EQ(counted().flops, 2 * 3 * 6 * 4);
  EXPECT_EQ(counted().bytes_read, 4 * (12 + 6 + 24 + 6 + 6));

  // Two entries: their rows of h, and the vectors of three members each.
  backend.run(ClusterLogProbs{.out = make({2, 3}),
                              .h = h,
                              .rows = ids(2),
                              .clusters = ids(2),
                              .member_codebook = vectors,
                              .token_bias = bias,
                              .map = map});
  EXPECT_EQ(counted().flops, 2 * 6 * 4);
  EXPECT_EQ(counted().bytes_read, 4 * (2 + 2 + 6 + 6 + 2 * 4 + 6 * 4));
}

// A part of 4 of the 6 members, of which a target's cluster has 1.5 on average.
TEST_F(PlannedMembersTest, PartsCostTheirOwnMembers) {
  const CodeMapView part{ids(6), ids(6), ids(4), ids(3), {}, ids(2), 2, 1.5};
  const Tensor own = make({4, 4});
  backend.run(MemberStatistics{.statistics = make({3, 3}),
                               .h = h,
                               .targets = ids(3),
                               .order = ids(3),
                               .row_begin = ids(3),
                               .vectors = own,
                               .token_bias = bias,
                               .map = part});
  EXPECT_EQ(counted().flops, 2 * 12 * 1.5);
  // h, targets, order, row_begin, vectors, biases, members, member_begin.
  EXPECT_EQ(counted().bytes_read, 4 * (12 + 3 + 3 + 3 + 16 + 6 + 4 + 3));
  EXPECT_EQ(counted().bytes_written, 4 * 9);
  backend.run(MemberPartGradient{.gradients = {make({3, 4}), make({4, 4}), bias},
                                 .h = h,
                                 .lse = make({3}),
                                 .targets = ids(3),
                                 .order = ids(3),
                                 .row_begin = ids(3),
                                 .vectors = own,
                                 .token_bias = bias,
                                 .map = part});
  EXPECT_EQ(counted().flops, 2 * 2 * 12 * 1.5);  // scores made again are no work of the model
  backend.run(MemberMeansPart{.means = make({2, 4}), .vectors = own, .map = part});
  EXPECT_EQ(counted().bytes_read, 4 * (16 + 3 + 2));
  EXPECT_EQ(counted().bytes_written, 4 * 8);
}

TEST_F(PlannedMembersTest, ScatteredRowsAreReadAndWritten) {
  backend.run(ScatterAddRows{.dtable = make({8, 40}), .dout = make({6, 40}), .rows = ids(6)});
  EXPECT_EQ(counted().bytes_read, 4 * (6 + 2 * 240));
  EXPECT_EQ(counted().bytes_written, 4 * 240);
}

}  // namespace
}  // namespace vqlm
