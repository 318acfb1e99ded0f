// How threads share the work among clusters' members.
#include "core/cpu/member_units.h"

#include <gtest/gtest.h>

#include "tests/core/member_map.h"

namespace vqlm::testing {
namespace {

/// Threads share a cluster's units only where the rows that each of them then sums apart are few.
TEST(MemberPlanTest, LargeClustersStayWithOneThread) {
  const MemberCase c = with_own_vectors("", 900, 16, {50, 2}, true);
  MemberMap map(c);
  HostI32 row_begin({3});
  row_begin[1] = 880;
  row_begin[2] = 900;
  cpu::members::Problem problem{};
  problem.sizes = {1, c.vocabulary(), c.d()};
  problem.row_begin = row_begin.tensor().i32();
  problem.member_begin = map.member_begin.tensor().i32();
  const auto clusters_of_parts = [&](std::int64_t most_shared) {
    const cpu::members::Plan plan = cpu::members::make_plan(problem, 2, 3, most_shared);
    std::vector<std::int64_t> units_of_first;
    for (std::size_t part = 0; part < 3; ++part) {
      std::int64_t count = 0;
      for (std::size_t u = plan.part_begin[part]; u < plan.part_begin[part + 1]; ++u) {
        count += plan.units[u].cluster == 0 ? 1 : 0;
      }
      units_of_first.push_back(count);
    }
    EXPECT_EQ(plan.part_begin.back(), plan.units.size());
    return units_of_first;
  };
  EXPECT_EQ(clusters_of_parts(50 * 16), (std::vector<std::int64_t>{3, 2, 2}));  // 7 units of up to 128 rows
  EXPECT_EQ(clusters_of_parts(50 * 16 - 1), (std::vector<std::int64_t>{7, 0, 0}));
}

}  // namespace
}  // namespace vqlm::testing
