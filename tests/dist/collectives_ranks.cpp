// Every collective over MPI, with integers that all dtypes hold exactly, so that sums are exact in any order.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "dist/mpi_check.h"
#include "tests/ranks.h"

namespace vqlm {
namespace {

using testing::session;

constexpr MpiChunking tiny_chunks{.elements_per_call = 7, .scratch_bytes = 96};

/// Rank's element i, in [1, 40]: different for neighbours in both directions, and sums of 4 ranks fit u8.
template <class T>
T element(int rank, std::int64_t i) {
  return static_cast<T>(1 + (i * 7 + rank * 11) % 40);
}

template <class T>
std::vector<T> elements(int rank, std::int64_t begin, std::int64_t count) {
  std::vector<T> x(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) x[static_cast<std::size_t>(i)] = element<T>(rank, begin + i);
  return x;
}

template <class T>
Tensor view(std::vector<T>& x, std::int64_t begin, std::int64_t count) {
  return Tensor(x.data() + begin, dtype_of<T>(), {count});
}
template <class T>
Tensor view(std::vector<T>& x) {
  return view(x, 0, static_cast<std::int64_t>(x.size()));
}

template <class T>
std::vector<T> expected_reduction(int ranks, std::int64_t begin, std::int64_t count, Reduce op) {
  std::vector<T> result = elements<T>(0, begin, count);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<T> x = elements<T>(rank, begin, count);
    for (std::size_t i = 0; i < x.size(); ++i) {
      result[i] = op == Reduce::sum ? static_cast<T>(result[i] + x[i]) : std::max(result[i], x[i]);
    }
  }
  return result;
}

/// Elements of one rank: none, one, below and above a small all-reduce, with and without a rest; over a million.
std::vector<std::int64_t> counts(const MpiChunking& chunking) {
  if (chunking.elements_per_call < 100) return {0, 1, 7, 50};
  return {0, 1, 5, 1000, 4099, 1'200'001};
}

template <class T>
class Collectives : public ::testing::Test {};
template <class T>
class Reductions : public ::testing::Test {};
using AllTypes = ::testing::Types<float, double, std::int32_t, std::uint8_t>;
using ReducedTypes = ::testing::Types<float, double, std::int32_t>;
TYPED_TEST_SUITE(Collectives, AllTypes);
TYPED_TEST_SUITE(Reductions, ReducedTypes);

/// Calls body(world, n) for both chunkings and every count.
template <class Body>
void for_each_case(Body body) {
  for (const MpiChunking& chunking : {MpiChunking{}, tiny_chunks}) {
    const auto world = session().split(0, session().rank(), "world", chunking);
    for (const std::int64_t n : counts(chunking)) {
      SCOPED_TRACE(::testing::Message() << "n " << n << ", elements per call " << chunking.elements_per_call);
      body(*world, n);
    }
  }
}

TYPED_TEST(Reductions, AllReduce) {
  for_each_case([](Communicator& world, std::int64_t n) {
    for (const Reduce op : {Reduce::sum, Reduce::max}) {
      auto x = elements<TypeParam>(world.rank(), 0, n);
      world.all_reduce(view(x), op, Stream{});
      EXPECT_TRUE((x == expected_reduction<TypeParam>(world.size(), 0, n, op)));
    }
  });
}

TYPED_TEST(Reductions, ReduceScatter) {
  for_each_case([](Communicator& world, std::int64_t n) {
    for (const Reduce op : {Reduce::sum, Reduce::max}) {
      auto in = elements<TypeParam>(world.rank(), 0, n * world.size());
      const auto before = in;
      std::vector<TypeParam> out(static_cast<std::size_t>(n));
      world.reduce_scatter(view(out), view(in), op, Stream{});
      const auto expected = expected_reduction<TypeParam>(world.size(), n * world.rank(), n, op);
      EXPECT_TRUE(out == expected);
      EXPECT_TRUE(in == before);

      world.reduce_scatter(view(in, n * world.rank(), n), view(in), op, Stream{});
      const auto mine = in.begin() + n * world.rank();
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), mine)) << "in place";
    }
  });
}

TYPED_TEST(Collectives, AllGather) {
  for_each_case([](Communicator& world, std::int64_t n) {
    std::vector<TypeParam> expected;
    for (int rank = 0; rank < world.size(); ++rank) {
      const auto part = elements<TypeParam>(rank, 0, n);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    auto in = elements<TypeParam>(world.rank(), 0, n);
    std::vector<TypeParam> out(expected.size());
    world.all_gather(view(out), view(in), Stream{});
    EXPECT_TRUE(out == expected);

    std::vector<TypeParam> shared(expected.size());
    std::copy(in.begin(), in.end(), shared.begin() + n * world.rank());
    world.all_gather(view(shared), view(shared, n * world.rank(), n), Stream{});
    EXPECT_TRUE(shared == expected) << "in place";
  });
}

TYPED_TEST(Collectives, AllToAll) {
  for_each_case([](Communicator& world, std::int64_t n) {
    auto in = elements<TypeParam>(world.rank(), 0, n * world.size());
    std::vector<TypeParam> out(in.size());
    world.all_to_all(view(out), view(in), Stream{});
    std::vector<TypeParam> expected;
    for (int rank = 0; rank < world.size(); ++rank) {
      const auto block = elements<TypeParam>(rank, n * world.rank(), n);
      expected.insert(expected.end(), block.begin(), block.end());
    }
    EXPECT_TRUE(out == expected);
  });
}

/// What rank `from` has for rank `to`: nothing, a few, or more, unevenly, and nothing at all from or for the last rank of
/// several where 5 divides n.
std::int64_t uneven(std::int64_t n, int ranks, int from, int to) {
  if (n % 5 == 0 && ranks > 1 && (from == ranks - 1 || to == ranks - 1)) return 0;
  return (from + 2 * to) % 3 * n + (from == to ? 1 : 0);
}

TYPED_TEST(Collectives, AllToAllOfUnevenBlocks) {
  for_each_case([](Communicator& world, std::int64_t n) {
    const int self = world.rank(), ranks = world.size();
    std::vector<std::int64_t> in_counts, out_counts;
    std::vector<TypeParam> in, expected;
    const auto append = [](std::vector<TypeParam>& all, int from, int to, std::int64_t count) {
      const auto block = elements<TypeParam>(from, 1000 * to, count);
      all.insert(all.end(), block.begin(), block.end());
    };
    for (int peer = 0; peer < ranks; ++peer) {
      in_counts.push_back(uneven(n, ranks, self, peer));
      out_counts.push_back(uneven(n, ranks, peer, self));
      append(in, self, peer, in_counts.back());
      append(expected, peer, self, out_counts.back());
    }
    const auto before = in;
    std::vector<TypeParam> out(expected.size());
    world.all_to_all_v(view(out), out_counts, view(in), in_counts, Stream{});
    EXPECT_TRUE(out == expected);
    EXPECT_TRUE(in == before);

    // And back.
    std::vector<TypeParam> returned(in.size());
    world.all_to_all_v(view(returned), in_counts, view(out), out_counts, Stream{});
    EXPECT_TRUE(returned == in);
  });
}

TYPED_TEST(Collectives, Broadcast) {
  for_each_case([](Communicator& world, std::int64_t n) {
    for (int root = 0; root < world.size(); ++root) {
      auto x = elements<TypeParam>(world.rank(), 0, n);
      world.broadcast(view(x), root, Stream{});
      EXPECT_TRUE(x == elements<TypeParam>(root, 0, n)) << "root " << root;
    }
  });
}

// The clock is the node's, so this holds for any delay: nobody leaves before the last one has come.
TEST(Barrier, NobodyLeavesBeforeTheLastHasCome) {
  const auto world = session().split(0, session().rank(), "world");
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  if (world->rank() == world->size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  double last_arrival = now();
  world->barrier();
  const double departure = now();
  world->all_reduce(Tensor(&last_arrival, DType::f64, {1}), Reduce::max, Stream{});
  EXPECT_GE(departure, last_arrival);
}

TEST(AllReduce, MaximumKeepsNaN) {
  const auto world = session().split(0, session().rank(), "world");
  std::vector<float> x(static_cast<std::size_t>(world->size()), 1.0f);
  x[static_cast<std::size_t>(world->rank())] = std::numeric_limits<float>::quiet_NaN();
  world->all_reduce(view(x), Reduce::max, Stream{});
  for (const float value : x) EXPECT_TRUE(std::isnan(value));
}

TEST(Split, OrdersByKeyAndSeparatesColors) {
  const int rank = session().rank();
  const auto group = session().split(rank % 2, -rank, "reversed");
  const int same_color = (session().size() + 1 - rank % 2) / 2;
  EXPECT_EQ(group->size(), same_color);
  EXPECT_EQ(group->rank(), same_color - 1 - rank / 2);
  EXPECT_EQ(group->name(), "reversed");
  std::int32_t sum = rank;
  group->all_reduce(Tensor(&sum, DType::i32, {1}), Reduce::sum, Stream{});
  std::int32_t expected = 0;
  for (int other = rank % 2; other < session().size(); other += 2) expected += other;
  EXPECT_EQ(sum, expected);
}

TEST(Failure, NamesCollectiveRankAndGroup) {
  try {
    mpi_check(1, "all_gather", 3, "tensor");
    ADD_FAILURE() << "an MPI error code passed the check";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("all_gather: rank 3 of group 'tensor': "), 0u) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

// Ranks that disagree about a count are told so (MPI_ERR_TRUNCATE) instead of ending in MPI's default abort.
// Pairs, because in a larger tree a rank that throws leaves those below it waiting.
TEST(Failure, BroadcastOfDifferentCountsThrows) {
  const auto group = session().split(session().rank() / 2, session().rank(), "faulty");
  const bool is_root = group->rank() == 0;
  std::vector<float> x(is_root ? 10 : 5);
  if (is_root) {
    EXPECT_NO_THROW(group->broadcast(view(x), 0, Stream{}));
  } else {
    EXPECT_THROW(group->broadcast(view(x), 0, Stream{}), Error);
  }
}

// The receiver has room for less than what is sent: it is told, and its neighbour's memory stays as it is.
TEST(Failure, AnAllToAllOfDifferentCountsThrows) {
  const auto group = session().split(session().rank() / 2, session().rank(), "faulty");
  if (group->size() == 1) GTEST_SKIP() << "a pair";
  const bool is_short = group->rank() == 1;
  const std::vector<std::int64_t> sent = {10, 10}, received = {is_short ? 5 : 10, 10};
  std::vector<float> in(20), out(20, -1.0f);
  const auto exchange = [&] {
    group->all_to_all_v(view(out, 0, received[0] + received[1]), received, view(in), sent, Stream{});
  };
  if (!is_short) {
    EXPECT_NO_THROW(exchange());
    return;
  }
  try {
    exchange();
    ADD_FAILURE() << "more than there was room for";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("all_to_all_v: rank 1 of group 'faulty': "), 0u) << error.what();
  }
  EXPECT_EQ(std::vector<float>(out.begin() + 15, out.end()), std::vector<float>(5, -1.0f));
}

}  // namespace
}  // namespace vqlm
