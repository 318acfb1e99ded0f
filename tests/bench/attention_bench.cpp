// Attention on the CPU in FLOP/s of the causal work (T (T + 1) / 2 scores a head; 2 products forward, 5 backward), to
// be compared with the product of its tile's shape. Arguments: sequence length, heads, key/value heads, head_dim,
// threads; the batch is chosen so that B * T = 2048 positions.
#include <benchmark/benchmark.h>

#include <memory>
#include <string_view>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"

namespace vqlm {
namespace {

/// A call's operands.
class Bench {
 public:
  explicit Bench(const benchmark::State& state)
      : backend(make_cpu_backend(static_cast<int>(state.range(4)))),
        shape{2048 / state.range(0), state.range(0), static_cast<int>(state.range(1)), static_cast<int>(state.range(2)),
              static_cast<int>(state.range(3))},
        qkv(make({shape.batch, shape.seq_len, shape.row()})),
        dqkv(make(qkv.shape())),
        out(make({shape.batch, shape.seq_len, std::int64_t{shape.heads} * shape.head_dim})),
        dout(make(out.shape())),
        lse(make({shape.batch, shape.heads, shape.seq_len})) {}

  double flops_of_a_product() const {
    const auto scores = static_cast<double>(shape.batch * shape.heads * shape.seq_len * (shape.seq_len + 1) / 2);
    return 2 * scores * shape.head_dim;
  }

 private:
  Tensor make(Shape extents) {
    buffers_.push_back(backend->allocate(static_cast<std::size_t>(extents.numel()) * 4, MemoryUse::workspace));
    const Tensor x = buffers_.back().view(extents);
    const Philox rng(1, buffers_.size());
    for (std::int64_t i = 0; i < x.numel(); ++i) x.f32()[i] = rng.normal(static_cast<std::uint64_t>(i));
    return x;
  }

 public:
  std::unique_ptr<Backend> backend;

 private:
  std::vector<Buffer> buffers_;

 public:
  AttentionShape shape;
  Tensor qkv, dqkv, out, dout, lse;
};

void report_flops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void attention_forward(benchmark::State& state) {
  Bench bench(state);
  for (auto _ : state)
    bench.backend->run(AttentionForward{.out = bench.out, .lse = bench.lse, .qkv = bench.qkv, .shape = bench.shape});
  report_flops(state, 2 * bench.flops_of_a_product());
}

void attention_backward(benchmark::State& state) {
  Bench bench(state);
  bench.backend->run(AttentionForward{.out = bench.out, .lse = bench.lse, .qkv = bench.qkv, .shape = bench.shape});
  for (auto _ : state) {
    bench.backend->run(AttentionBackward{.dqkv = bench.dqkv,
                                         .dout = bench.dout,
                                         .out = bench.out,
                                         .lse = bench.lse,
                                         .qkv = bench.qkv,
                                         .shape = bench.shape});
  }
  report_flops(state, 5 * bench.flops_of_a_product());
}

/// The yardstick: the machine's product rate.
void matmul(benchmark::State& state) {
  const std::int64_t size = state.range(0);
  const auto backend = make_cpu_backend(static_cast<int>(state.range(1)));
  const Buffer storage = backend->allocate(static_cast<std::size_t>(3 * size * size) * 4, MemoryUse::workspace);
  const Tensor all = storage.view({3 * size, size});
  backend->fill(all, 1.0f);
  for (auto _ : state) {
    backend->run(Matmul{.c = all.rows(0, size),
                        .a = all.rows(size, size),
                        .b = all.rows(2 * size, size),
                        .tb = Transpose::yes,
                        .accumulate = Accumulate::no});
  }
  report_flops(state, 2.0 * static_cast<double>(size * size * size));
}

void shapes(benchmark::internal::Benchmark* bench) {
  for (const std::int64_t threads : {1, 2}) {
    bench->Args({512, 8, 8, 64, threads});
    bench->Args({512, 8, 2, 64, threads});
    bench->Args({2048, 8, 8, 64, threads});
    bench->Args({256, 4, 4, 64, threads});
    bench->Args({1024, 4, 4, 128, threads});
  }
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(matmul)->Args({1024, 1})->Args({1024, 2})->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(attention_forward)->Apply(shapes);
BENCHMARK(attention_backward)->Apply(shapes);

}  // namespace
}  // namespace vqlm

BENCHMARK_MAIN();
