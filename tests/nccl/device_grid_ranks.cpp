// The process grid and the gradient buckets on a device back end: kernels on the compute stream, collectives beside it.
#include <gtest/gtest.h>

#include <bit>

#include "dist/gradient_buckets.h"
#include "tests/nccl/nccl_world.h"

namespace vqlm {
namespace {

using testing::own_device;
using testing::session;

int gradient(int step, int data_rank, int tensor_rank, std::int64_t i) {
  return static_cast<int>((i * 5 + data_rank * 13 + tensor_rank * 29 + step * 3) % 101) - 50;
}

/// Calls body(backend, grid) for every factorization of the world.
template <class Body>
void for_each_grid(Body body) {
  const auto backend = make_cuda_backend(own_device());
  for (int tensor = 1; tensor <= session().size(); ++tensor) {
    if (session().size() % tensor != 0) continue;
    SCOPED_TRACE(::testing::Message() << "data " << session().size() / tensor << ", tensor " << tensor);
    body(*backend, ProcessGrid(session(), *backend, 0, tensor, {.timeout_seconds = 60}));
  }
}

std::vector<float> host_copy(Backend& backend, Tensor x) {
  std::vector<float> values(static_cast<std::size_t>(x.numel()));
  backend.copy_to_host(values.data(), x);
  return values;
}

TEST(DeviceGrid, GroupsOfOneRankAreAloneUnlessForced) {
  const auto backend = make_cuda_backend(own_device());
  for (const bool forced : {false, true}) {
    const ProcessGrid grid(session(), *backend, 0, 1, {.timeout_seconds = 60, .force_nccl = forced});
    EXPECT_EQ(dynamic_cast<NcclCommunicator*>(&grid.tensor()) != nullptr, forced);
    EXPECT_EQ(dynamic_cast<NcclCommunicator*>(&grid.world()) != nullptr, forced || session().size() > 1);
    EXPECT_EQ(grid.tensor().size(), 1);
    EXPECT_EQ(grid.data_rank(), session().rank());
  }
}

struct Layout {
  std::vector<ParameterBucket> buckets;
  std::int64_t total = 0;
};

Layout make_layout(std::int64_t data_size) {
  return {{{.name = "sharded", .replicated = false, .begin = 2, .count = 5 * data_size},
           {.name = "empty", .replicated = true, .begin = 40, .count = 0},
           {.name = "replicated", .replicated = true, .begin = 60, .count = 7 * data_size},
           {.name = "large", .replicated = false, .begin = 200, .count = 2'000 * data_size}},
          200 + 2'000 * data_size + 3};
}

int expected_sum(int step, const ProcessGrid& grid, bool replicated, std::int64_t i) {
  int sum = 0;
  for (int d = 0; d < grid.data_size(); ++d) {
    for (int t = 0; t < grid.tensor_size(); ++t) {
      if (replicated || t == grid.tensor_rank()) sum += gradient(step, d, t, i);
    }
  }
  return sum;
}

// Backward as the streams see it: a kernel completes a bucket's gradients, its reduction starts, the next kernel runs.
TEST(DeviceBuckets, OwnedPiecesHoldThePlainSumsWithAndWithoutOverlap) {
  for_each_grid([](Backend& backend, const ProcessGrid& grid) {
    const Layout layout = make_layout(grid.data_size());
    const Shape all = {layout.total};
    const auto bytes = static_cast<std::size_t>(layout.total) * sizeof(float);
    const Buffer gradients = backend.allocate(bytes, MemoryUse::gradients);
    const Buffer storage = backend.allocate(bytes, MemoryUse::gradients);
    const Tensor ones = storage.view(all, backend.activation_dtype());
    const Tensor flat = gradients.view(all);
    backend.fill(ones, 1.0f);
    for (const Overlap overlap : {Overlap::yes, Overlap::no}) {
      GradientBuckets buckets(backend, grid, flat, layout.buckets, overlap);
      for (int step = 0; step < 2; ++step) {
        std::vector<float> less_one;
        for (std::int64_t i = 0; i < layout.total; ++i) {
          less_one.push_back(static_cast<float>(gradient(step, grid.data_rank(), grid.tensor_rank(), i) - 1));
        }
        backend.copy_from_host(flat, less_one.data());
        for (std::size_t bucket = layout.buckets.size(); bucket-- > 0;) {
          const std::int64_t begin = layout.buckets[bucket].begin, count = layout.buckets[bucket].count;
          if (count > 0)
            backend.run(AddColumnSums{.out = flat.range(begin, count), .x = ones.range(0, count).view({1, count})});
          buckets.reduce(bucket, backend.compute_stream());
        }
        for (const Event& done : buckets.finish()) backend.wait(backend.compute_stream(), done);

        const std::vector<float> reduced = host_copy(backend, flat);
        const auto owned = buckets.owned();
        for (std::size_t bucket = 0; bucket < owned.size(); ++bucket) {
          const auto [begin, count] = owned[bucket];
          int wrong = 0;
          for (std::int64_t i = begin; i < begin + count; ++i) {
            const auto sum = static_cast<float>(expected_sum(step, grid, layout.buckets[bucket].replicated, i));
            wrong += reduced[static_cast<std::size_t>(i)] != sum ? 1 : 0;
          }
          EXPECT_EQ(wrong, 0) << "bucket " << bucket << ", step " << step;
        }
      }
    }
  });
}

// Buckets of both dtypes are gathered in one group, as after the optimizer: matrices as bf16 compute copies, the rest
// as the f32 master values.
TEST(DeviceBuckets, GatherBringsEveryOwnersPieceInEitherDtype) {
  for_each_grid([](Backend& backend, const ProcessGrid& grid) {
    const Layout layout = make_layout(grid.data_size());
    const Shape all = {layout.total};
    const auto count = static_cast<std::size_t>(layout.total);
    const Buffer master = backend.allocate(count * sizeof(float), MemoryUse::parameters);
    const Buffer rounded = backend.allocate(count * 2, MemoryUse::parameters);
    const Tensor values = master.view(all);
    const Tensor copies = rounded.view(all, DType::bf16);
    const GradientBuckets buckets(backend, grid, values, layout.buckets);
    backend.fill(values, -1.0f);
    backend.fill(copies, -1.0f);
    for (const auto& [begin, n] : buckets.owned()) {
      if (n == 0) continue;
      backend.fill(values.range(begin, n), static_cast<float>(grid.data_rank() + 1));
      backend.round_to_activation(copies.range(begin, n), values.range(begin, n));
    }
    Event last;
    buckets.gather_begin();
    for (std::size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
      const ParameterBucket& range = layout.buckets[bucket];
      const Event done = buckets.gather(bucket, (range.replicated ? values : copies).range(range.begin, range.count),
                                        backend.compute_stream());
      if (done.handle() != nullptr) last = done;
    }
    buckets.gather_end();
    backend.wait(backend.compute_stream(), last);

    const std::vector<float> whole = host_copy(backend, values);
    std::vector<std::uint16_t> bits(count);
    backend.copy_to_host(bits.data(), copies);
    for (std::size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
      const std::int64_t begin = layout.buckets[bucket].begin, n = layout.buckets[bucket].count;
      int wrong = 0;
      for (std::int64_t i = begin; i < begin + n; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const float copy = std::bit_cast<float>(static_cast<std::uint32_t>(bits[at]) << 16);
        const auto owner = static_cast<float>((i - begin) / (n / grid.data_size()) + 1);
        wrong += (layout.buckets[bucket].replicated ? whole[at] : copy) != owner ? 1 : 0;
      }
      EXPECT_EQ(wrong, 0) << "bucket " << bucket;
    }
  });
}

// Overlap as a fact instead of a time: rank 0 finishes later work of the compute stream before the other ranks have even
// called the reduction. Without overlap the compute stream would wait for them, and they for rank 0.
TEST(DeviceBuckets, ComputeGoesOnWhileAReductionWaitsForItsPeers) {
  const auto backend = make_cuda_backend(own_device());
  const ProcessGrid grid(session(), *backend, 0, 1, {.timeout_seconds = 60});
  const auto host = session().split(0, session().rank(), "host");
  const std::int64_t count = 12 * session().size();
  const Buffer gradients = backend->allocate(static_cast<std::size_t>(count) * sizeof(float), MemoryUse::gradients);
  const Buffer later = backend->allocate(8 * sizeof(float), MemoryUse::activations);
  backend->fill(gradients.view({count}), 1.0f);
  const std::vector<ParameterBucket> whole = {{.name = "whole", .replicated = false, .begin = 0, .count = count}};
  GradientBuckets buckets(*backend, grid, gradients.view({count}), whole);

  if (session().rank() > 0) host->barrier();
  buckets.reduce(0, backend->compute_stream());
  backend->fill(later.view({8}), 3.0f);
  if (session().rank() == 0) {
    EXPECT_EQ(host_copy(*backend, later.view({8})), std::vector<float>(8, 3.0f));
    host->barrier();
  }
  for (const Event& done : buckets.finish()) backend->wait(backend->compute_stream(), done);
  const auto [begin, n] = buckets.owned()[0];
  EXPECT_EQ(host_copy(*backend, gradients.view({count}).range(begin, n)),
            std::vector<float>(static_cast<std::size_t>(n), static_cast<float>(session().size())));
}

}  // namespace
}  // namespace vqlm
