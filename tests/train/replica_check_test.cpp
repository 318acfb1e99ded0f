// Which rank is named where copies differ.
#include "train/engine/replica_check.h"

#include <gtest/gtest.h>

#include <ostream>

namespace vqlm {
void PrintTo(const ReplicaDifference& d, std::ostream* out) {
  *out << d.bucket << ":";
  for (const int rank : d.ranks) *out << " " << rank;
  *out << (d.majority ? " against a majority" : " without a majority");
}

namespace {

const std::vector<ParameterBucket> buckets = {{.name = "layer 0", .replicated = false, .count = 4},
                                              {.name = "replicated", .replicated = true, .count = 4}};

using Differences = std::vector<ReplicaDifference>;

TEST(CompareReplicas, EqualCopiesAreNoDifference) {
  // Two tensor ranks hold different layers, rightly.
  EXPECT_EQ(compare_replicas({10, 7, 20, 7, 10, 7, 20, 7}, buckets, 2), Differences{});
  EXPECT_EQ(compare_replicas({10, 7}, buckets, 1), Differences{});
}

TEST(CompareReplicas, TheMinorityIsNamed) {
  EXPECT_EQ(compare_replicas({10, 7, 11, 7, 10, 7}, buckets, 1), (Differences{{"layer 0", {1}, true}}));
  // Six ranks as 3 x 2: rank 4 among ranks 0, 2, 4; rank 3 among all.
  EXPECT_EQ(compare_replicas({10, 7, 20, 7, 10, 7, 20, 8, 12, 7, 20, 7}, buckets, 2),
            (Differences{{"layer 0", {4}, true}, {"replicated", {3}, true}}));
  EXPECT_EQ(compare_replicas({1, 7, 1, 7, 1, 8, 1, 9, 1, 7}, buckets, 1), (Differences{{"replicated", {2, 3}, true}}));
}

TEST(CompareReplicas, WithoutAMajorityAllHoldersAreNamed) {
  EXPECT_EQ(compare_replicas({10, 7, 11, 7}, buckets, 1), (Differences{{"layer 0", {0, 1}, false}}));
  EXPECT_EQ(compare_replicas({10, 7, 20, 7, 10, 7, 21, 7}, buckets, 2), (Differences{{"layer 0", {1, 3}, false}}));
  EXPECT_EQ(compare_replicas({1, 7, 1, 7, 1, 8, 1, 8}, buckets, 1), (Differences{{"replicated", {0, 1, 2, 3}, false}}));
}

}  // namespace
}  // namespace vqlm
