// Bytes a second of the collectives by size:   mpirun -n 2 --oversubscribe --bind-to none build/collectives_bench
// "MiB" is the whole vector (P blocks); rates are that size over the mean time of a call, so that the numbers of
// different collectives compare, and "memcpy" of the same vector by every rank at once is the speed of this memory.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "dist/mpi_session.h"

namespace vqlm {
namespace {

/// Mean seconds of body() over enough calls for a stable mean; the slowest rank's counts.
template <class Body>
double seconds_per_call(Communicator& world, std::int64_t bytes, Body body) {
  const int calls = bytes >= (1 << 20) ? 10 : 200;
  body();  // first touch of pages, and connections
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  for (int call = 0; call < calls; ++call) body();
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
  world.all_reduce(Tensor(&seconds, DType::f64, {1}), Reduce::max, Stream{});
  return seconds;
}

void measure(Communicator& world, std::int64_t block) {
  const std::int64_t n = block * world.size();
  const std::int64_t bytes = n * 4;
  std::vector<float> a(static_cast<std::size_t>(n)), b(a);  // zeros: repeated sums stay finite
  const Tensor x(a.data(), DType::f32, {n});
  const Tensor y(b.data(), DType::f32, {n});
  const auto rate = [&](auto body) { return static_cast<double>(bytes) / seconds_per_call(world, bytes, body) / 1e9; };

  const double copy = rate([&] { std::memcpy(b.data(), a.data(), static_cast<std::size_t>(bytes)); });
  const double gather = rate([&] { world.all_gather(y, y.range(world.rank() * block, block), Stream{}); });
  const double scatter =
      rate([&] { world.reduce_scatter(y.range(world.rank() * block, block), x, Reduce::sum, Stream{}); });
  const double reduce = rate([&] { world.all_reduce(x, Reduce::sum, Stream{}); });
  const double exchange = rate([&] { world.all_to_all(y, x, Stream{}); });
  if (world.rank() == 0) {
    std::printf("%10.4f %12.2f %12.2f %12.2f %12.2f %12.2f\n", static_cast<double>(bytes) / (1 << 20), gather, scatter,
                reduce, exchange, copy);
  }
}

int run() {
  const MpiSession session(MpiStart::always);
  const auto world = session.split(0, session.rank(), "world");
  if (session.rank() == 0) {
    std::printf("f32 on %d ranks, %d on this node; GB/s\n%10s %12s %12s %12s %12s %12s\n", session.size(),
                session.local_size(), "MiB", "all_gather", "reduce_scat", "all_reduce", "all_to_all", "memcpy");
  }
  for (std::int64_t bytes = 1 << 12; bytes <= (64 << 20); bytes *= 4) {
    measure(*world, bytes / 4 / session.size());
  }
  return 0;
}

}  // namespace
}  // namespace vqlm

int main() {
  try {
    return vqlm::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "collectives_bench: %s\n", error.what());
    return 1;
  }
}
