// Gradient buckets against plain sums of small integers, which floats hold exactly.
#include "dist/gradient_buckets.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "dist/process_grid.h"
#include "tests/ranks.h"

namespace vqlm {
namespace {

using testing::session;

float gradient(int step, int data_rank, int tensor_rank, std::int64_t i) {
  return static_cast<float>((i * 5 + data_rank * 13 + tensor_rank * 29 + step * 3) % 101 - 50);
}

// Large enough for a thread beside the main one on two ranks and more, and for more than one of its exchanges.
constexpr std::int64_t large_piece = 600'001;

struct Layout {
  std::vector<ParameterBucket> buckets;
  std::int64_t total = 0;
};

/// Sharded, empty, replicated and large buckets with gaps that belong to none.
Layout make_layout(std::int64_t data_size) {
  Layout layout;
  layout.buckets = {{.name = "sharded", .replicated = false, .begin = 2, .count = 5 * data_size},
                    {.name = "empty", .replicated = true, .begin = 40, .count = 0},
                    {.name = "replicated", .replicated = true, .begin = 60, .count = 7 * data_size},
                    {.name = "large", .replicated = false, .begin = 1000, .count = large_piece * data_size}};
  layout.total = 1000 + large_piece * data_size + 3;
  return layout;
}

float expected_sum(int step, const ProcessGrid& grid, bool replicated, std::int64_t i) {
  float sum = 0;
  for (int d = 0; d < grid.data_size(); ++d) {
    for (int t = 0; t < grid.tensor_size(); ++t) {
      if (replicated || t == grid.tensor_rank()) sum += gradient(step, d, t, i);
    }
  }
  return sum;
}

/// Calls body(backend, grid) for every factorization of the world.
template <class Body>
void for_each_grid(Body body) {
  const auto backend = make_cpu_backend(1);
  for (int tensor = 1; tensor <= session().size(); ++tensor) {
    if (session().size() % tensor != 0) continue;
    SCOPED_TRACE(::testing::Message() << "data " << session().size() / tensor << ", tensor " << tensor);
    body(*backend, ProcessGrid(session(), *backend, 0, tensor));
  }
}

void expect_plain_sums(Overlap overlap) {
  for_each_grid([overlap](Backend& backend, const ProcessGrid& grid) {
    const Layout layout = make_layout(grid.data_size());
    std::vector<float> flat(static_cast<std::size_t>(layout.total));
    GradientBuckets buckets(backend, grid, Tensor(flat.data(), DType::f32, {layout.total}), layout.buckets, overlap);
    for (int step = 0; step < 2; ++step) {
      for (std::int64_t i = 0; i < layout.total; ++i) {
        flat[static_cast<std::size_t>(i)] = gradient(step, grid.data_rank(), grid.tensor_rank(), i);
      }
      for (std::size_t bucket = layout.buckets.size(); bucket-- > 0;) buckets.reduce(bucket, Stream{});
      EXPECT_TRUE(buckets.finish().empty());  // host communicators have finished

      std::vector<bool> in_bucket(flat.size(), false);
      const auto owned = buckets.owned();
      for (std::size_t bucket = 0; bucket < owned.size(); ++bucket) {
        const auto [begin, count] = owned[bucket];
        int wrong = 0;
        for (std::int64_t i = begin; i < begin + count; ++i) {
          const float sum = expected_sum(step, grid, layout.buckets[bucket].replicated, i);
          wrong += flat[static_cast<std::size_t>(i)] != sum ? 1 : 0;
        }
        EXPECT_EQ(wrong, 0) << "bucket " << bucket << ", step " << step;
        const ParameterBucket& whole = layout.buckets[bucket];
        std::fill_n(in_bucket.begin() + whole.begin, whole.count, true);
      }
      int touched = 0;
      for (std::int64_t i = 0; i < layout.total; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (!in_bucket[at] && flat[at] != gradient(step, grid.data_rank(), grid.tensor_rank(), i)) ++touched;
      }
      EXPECT_EQ(touched, 0) << "elements outside every bucket, step " << step;
    }
  });
}

TEST(GradientBuckets, OwnedPiecesHoldThePlainSums) {
  for (const Overlap overlap : {Overlap::yes, Overlap::no}) {
    SCOPED_TRACE(overlap == Overlap::yes);
    expect_plain_sums(overlap);
  }
}

// Rank 0 begins its reductions before a barrier and the others theirs behind it.
TEST(GradientBuckets, ReductionsRunBesideTheMainThread) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(session(), *backend, 0, 1);
  if (session().size() == 1 || !session().allows_threads()) GTEST_SKIP() << "one rank, or MPI without threads";
  ASSERT_NE(grid.beside(), nullptr);
  const Layout layout = make_layout(grid.data_size());
  std::vector<float> flat(static_cast<std::size_t>(layout.total), 1.0f);
  GradientBuckets buckets(*backend, grid, Tensor(flat.data(), DType::f32, {layout.total}), layout.buckets);
  const std::size_t large = layout.buckets.size() - 1;
  if (grid.data_rank() == 0) buckets.reduce(large, Stream{});
  grid.world().barrier();
  if (grid.data_rank() != 0) buckets.reduce(large, Stream{});
  for (std::size_t bucket = 0; bucket < large; ++bucket) buckets.reduce(bucket, Stream{});
  buckets.finish();
  for (const auto& [begin, count] : buckets.owned()) {
    for (std::int64_t i = begin; i < begin + count; ++i) {
      EXPECT_EQ(flat[static_cast<std::size_t>(i)], static_cast<float>(grid.data_size()));
    }
  }
}

TEST(GradientBuckets, PiecesPartitionEveryBucketInRankOrder) {
  for_each_grid([](Backend& backend, const ProcessGrid& grid) {
    const Layout layout = make_layout(grid.data_size());
    std::vector<float> flat(static_cast<std::size_t>(layout.total));
    const GradientBuckets buckets(backend, grid, Tensor(flat.data(), DType::f32, {layout.total}), layout.buckets);
    const auto owned = buckets.owned();
    for (std::size_t bucket = 0; bucket < owned.size(); ++bucket) {
      EXPECT_EQ(owned[bucket].count * grid.data_size(), layout.buckets[bucket].count);
      EXPECT_EQ(owned[bucket].begin, layout.buckets[bucket].begin + grid.data_rank() * owned[bucket].count);
    }
  });
}

/// gather(buckets, bucket, its values) for each bucket, then end(buckets).
template <class Gather, class End>
void expect_owners_pieces(Gather gather, End end) {
  for_each_grid([&](Backend& backend, const ProcessGrid& grid) {
    const Layout layout = make_layout(grid.data_size());
    const auto parameter = [&](std::int64_t i) { return gradient(0, 0, grid.tensor_rank(), i); };
    std::vector<float> flat(static_cast<std::size_t>(layout.total), -1000.0f);
    const Tensor parameters(flat.data(), DType::f32, {layout.total});
    GradientBuckets buckets(backend, grid, parameters, layout.buckets);
    for (const auto& [begin, count] : buckets.owned()) {
      for (std::int64_t i = begin; i < begin + count; ++i) flat[static_cast<std::size_t>(i)] = parameter(i);
    }
    for (std::size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
      const ParameterBucket& range = layout.buckets[bucket];
      gather(buckets, bucket, parameters.range(range.begin, range.count));
    }
    end(buckets);
    std::vector<float> expected(flat.size(), -1000.0f);
    for (const ParameterBucket& bucket : layout.buckets) {
      for (std::int64_t i = bucket.begin; i < bucket.begin + bucket.count; ++i)
        expected[static_cast<std::size_t>(i)] = parameter(i);
    }
    EXPECT_TRUE(flat == expected);
  });
}

TEST(GradientBuckets, GatherBringsEveryOwnersPiece) {
  expect_owners_pieces(
      [](GradientBuckets& buckets, std::size_t bucket, Tensor values) { buckets.gather(bucket, values, Stream{}); },
      [](GradientBuckets&) {});
}

TEST(GradientBuckets, GathersThatBeginTogetherBringEveryOwnersPiece) {
  std::vector<GradientBuckets::Gathering> begun;
  expect_owners_pieces([&](GradientBuckets& buckets, std::size_t bucket,
                           Tensor values) { begun.push_back(buckets.begin_gather(bucket, values, Stream{})); },
                       [&](GradientBuckets& buckets) {
                         for (const auto& gathering : begun) buckets.await(gathering, Stream{});
                         begun.clear();
                       });
}

// Rank 0 begins its gather before a barrier and the others theirs behind it.
TEST(GradientBuckets, GathersRunBesideTheMainThread) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(session(), *backend, 0, 1);
  if (session().size() == 1 || !session().allows_threads()) GTEST_SKIP() << "one rank, or MPI without threads";
  const Layout layout = make_layout(grid.data_size());
  const std::size_t large = layout.buckets.size() - 1;
  const ParameterBucket& range = layout.buckets[large];
  std::vector<float> flat(static_cast<std::size_t>(layout.total), -1.0f);
  const Tensor values(flat.data(), DType::f32, {layout.total});
  GradientBuckets buckets(*backend, grid, values, layout.buckets);
  const BucketRange mine = buckets.owned()[large];
  std::fill_n(flat.begin() + mine.begin, mine.count, static_cast<float>(grid.data_rank()));
  GradientBuckets::Gathering gathering;
  const auto begin = [&] { gathering = buckets.begin_gather(large, values.range(range.begin, range.count), Stream{}); };
  if (grid.data_rank() == 0) begin();
  grid.world().barrier();
  if (grid.data_rank() != 0) begin();
  buckets.await(gathering, Stream{});
  for (std::int64_t i = 0; i < range.count; ++i)
    EXPECT_EQ(flat[static_cast<std::size_t>(range.begin + i)], static_cast<float>(i / mine.count));
}

}  // namespace
}  // namespace vqlm
