// Throughput of the basic ops on the CPU: bytes/s of compulsory traffic (every operand read or written once),
// to be compared with copy's, and FLOP/s of products. Arguments are shapes; the last is the thread
// count.
#include <benchmark/benchmark.h>

#include <memory>
#include <string_view>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/model/rope.h"
#include "core/rng.h"

namespace vqlm {
namespace {

constexpr std::int64_t tokens = 4096;

/// A back end and arrays filled with normal numbers.
class Bench {
 public:
  explicit Bench(std::int64_t threads) : backend_(make_cpu_backend(static_cast<int>(threads))) {}

  Backend& backend() { return *backend_; }
  Tensor make(Shape shape) {
    buffers_.push_back(backend_->allocate(static_cast<std::size_t>(shape.numel()) * 4, MemoryUse::workspace));
    const Tensor x = buffers_.back().view(shape);
    const Philox rng(1, buffers_.size());
    // Normal numbers repeat after 64 Ki elements: filling must not take longer than measuring.
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      x.f32()[i] = i < 65536 ? rng.normal(static_cast<std::uint64_t>(i)) : x.f32()[i - 65536];
    }
    return x;
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::vector<Buffer> buffers_;
};

/// An op, and the bytes that it costs.
template <class O>
void measure(benchmark::State& state, Bench& bench, const O& op) {
  for (auto _ : state) bench.backend().run(op);
  const OpCost cost = op.cost();
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(cost.bytes_read + cost.bytes_written));
}

/// The yardstick moves 2 floats an element.
void copy(benchmark::State& state) {
  Bench bench(state.range(1));
  const Tensor y = bench.make({state.range(0)}), x = bench.make({state.range(0)});
  for (auto _ : state) bench.backend().copy(y, x);
  state.SetBytesProcessed(state.iterations() * 2 * static_cast<std::int64_t>(y.bytes()));
}

void add_column_sums(benchmark::State& state) {
  Bench bench(state.range(1));
  const Tensor x = bench.make({tokens, state.range(0)}), out = bench.make({state.range(0)});
  measure(state, bench, AddColumnSums{.out = out, .x = x});
}

void rmsnorm_forward(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t width = state.range(0);
  const Tensor x = bench.make({tokens, width}), branch = bench.make({tokens, width}), sum = bench.make({tokens, width});
  const Tensor y = bench.make({tokens, width}), rstd = bench.make({tokens}), gain = bench.make({width});
  measure(state, bench,
          RmsnormForward{.y = y, .rstd = rstd, .sum = sum, .x = x, .branch = branch, .gain = gain, .eps = 1e-5f});
}

void rmsnorm_backward(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t width = state.range(0);
  const Tensor x = bench.make({tokens, width}), dy = bench.make({tokens, width}), dx = bench.make({tokens, width});
  const Tensor rstd = bench.make({tokens}), gain = bench.make({width}), dgain = bench.make({width});
  bench.backend().fill(rstd, 1);
  measure(state, bench,
          RmsnormBackward{
              .dx = dx, .dgain = dgain, .dy = dy, .x = x, .gain = gain, .rstd = rstd, .accumulate_dx = Accumulate::no});
}

void swiglu_forward(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t width = state.range(0);
  const Tensor gate_up = bench.make({tokens, 2 * width}), y = bench.make({tokens, width});
  measure(state, bench, SwigluForward{.y = y, .gate_up = gate_up});
}

void swiglu_backward(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t width = state.range(0);
  const Tensor gate_up = bench.make({tokens, 2 * width}), dgate_up = bench.make({tokens, 2 * width});
  const Tensor dy = bench.make({tokens, width});
  measure(state, bench, SwigluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
}

void rope_forward(benchmark::State& state) {
  Bench bench(state.range(1));
  const AttentionShape shape{.batch = 4, .seq_len = 1024, .heads = 12, .kv_heads = 4, .head_dim = 64};
  const Tensor qkv = bench.make({shape.batch, shape.seq_len, shape.row()});
  std::vector<double> frequencies = rope_frequencies({.d_model = shape.head_dim, .n_heads = 1});
  const RopePositions positions{Tensor(frequencies.data(), DType::f64, {shape.head_dim / 2})};
  measure(state, bench, RopeForward{.qkv = qkv, .shape = shape, .positions = positions});
}

/// Decoding over `past` positions: sequences, past, key/value heads of 12 query heads, threads.
void attention_cached(benchmark::State& state) {
  Bench bench(state.range(3));
  const auto past = state.range(1), sequences = state.range(0);
  const AttentionShape shape{sequences, 1, 12, static_cast<int>(state.range(2)), 64};
  const Tensor keys = bench.make({sequences, shape.kv_heads, past + 1, 64}),
               values = bench.make({sequences, shape.kv_heads, past + 1, 64});
  const Tensor qkv = bench.make({sequences, 1, shape.row()}), out = bench.make({sequences, 1, 12 * 64});
  measure(state, bench,
          AttentionCached{.out = out, .keys = keys, .values = values, .qkv = qkv, .shape = shape, .past = past});
}

void embedding_forward(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t width = state.range(0), rows = 50'257;
  const Tensor table = bench.make({rows, width}), out = bench.make({tokens, width}), raw = bench.make({tokens});
  const Tensor ids(raw.data(), DType::i32, {tokens});
  const Philox rng(2, 0);
  for (std::int64_t n = 0; n < tokens; ++n) {
    ids.i32()[n] = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(n), rows));
  }
  measure(state, bench, EmbeddingForward{.out = out, .ids = ids, .table = table, .first_row = 0});
}

void embedding_backward(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t width = state.range(0), rows = 50'257;
  const Tensor dtable = bench.make({rows, width}), dout = bench.make({tokens, width}), raw = bench.make({tokens});
  const Tensor ids(raw.data(), DType::i32, {tokens});
  const Philox rng(2, 0);
  for (std::int64_t n = 0; n < tokens; ++n) {
    ids.i32()[n] = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(n), rows));
  }
  measure(state, bench, EmbeddingBackward{.dtable = dtable, .dout = dout, .ids = ids, .first_row = 0});
}

/// All rows of a table of 768 columns in a shuffled order.
void scatter_add_rows(benchmark::State& state) {
  Bench bench(state.range(0));
  const std::int64_t columns = 768, rows = 50'257;
  const Tensor dtable = bench.make({rows, columns}), dout = bench.make({rows, columns}), raw = bench.make({rows});
  const Tensor ids(raw.data(), DType::i32, {rows});
  for (std::int64_t i = 0; i < rows; ++i) ids.i32()[i] = static_cast<std::int32_t>(i * 7919 % rows);
  measure(state, bench, ScatterAddRows{.dtable = dtable, .dout = dout, .rows = ids});
}

/// 256 clusters of 196 members, d = 768: their codes plus the members' means; and back.
void move_means(benchmark::State& state, bool back) {
  Bench bench(state.range(0));
  constexpr std::int64_t clusters = 256, size = 196, d = 768;
  const Tensor codes = bench.make({clusters, d}), members = bench.make({clusters * size, d}),
               out = bench.make({clusters, d}), ids = bench.make({clusters * size}), raw = bench.make({clusters + 1});
  CodeMapView map;
  map.members = Tensor(ids.data(), DType::i32, {clusters * size});
  map.member_begin = Tensor(raw.data(), DType::i32, {clusters + 1});
  for (std::int64_t k = 0; k <= clusters; ++k) map.member_begin.i32()[k] = static_cast<std::int32_t>(k * size);
  if (back) {
    measure(state, bench, AddMemberMeansBackward{.dcodebook = codes, .dmembers = members, .dout = out, .map = map});
  } else {
    measure(state, bench, AddMemberMeans{.out = out, .codebook = codes, .members = members, .map = map});
  }
}
void add_member_means(benchmark::State& state) {
  move_means(state, false);
}
void add_member_means_backward(benchmark::State& state) {
  move_means(state, true);
}

/// One row's log-probabilities inside `entries` of 256 clusters of 196 members; G = 32, Q, d = 768.
void cluster_log_probs(benchmark::State& state) {
  Bench bench(state.range(2));
  const std::int64_t entries = state.range(0), codes = state.range(1);
  constexpr std::int64_t clusters = 256, size = 196, groups = 32, d = 768, vocabulary = clusters * size;
  const Tensor h = bench.make({1, d}), codebook = bench.make({groups, codes, d / groups}),
               bias = bench.make({vocabulary}), out = bench.make({entries, size});
  std::vector<std::int32_t> rows(static_cast<std::size_t>(entries)), asked, begin, members;
  std::vector<std::uint8_t> member_codes;
  for (std::int64_t k = 0; k <= clusters; ++k) begin.push_back(static_cast<std::int32_t>(k * size));
  for (std::int64_t k = 0; k < entries; ++k) asked.push_back(static_cast<std::int32_t>(k * 37 % clusters));
  const Philox rng(3, 0);
  for (std::int64_t w = 0; w < vocabulary; ++w) members.push_back(static_cast<std::int32_t>(w));
  for (std::int64_t i = 0; i < vocabulary * groups; ++i) {
    member_codes.push_back(
        static_cast<std::uint8_t>(rng.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(codes))));
  }
  const auto ids = [](std::vector<std::int32_t>& x) {
    return Tensor(x.data(), DType::i32, {static_cast<std::int64_t>(x.size())});
  };
  CodeMapView map;
  map.members = ids(members);
  map.member_begin = ids(begin);
  map.member_codes = Tensor(member_codes.data(), DType::u8, {vocabulary, groups});
  map.largest_cluster = size;
  for (auto _ : state) {
    bench.backend().run(ClusterLogProbs{.out = out,
                                        .h = h,
                                        .rows = ids(rows),
                                        .clusters = ids(asked),
                                        .member_codebook = codebook,
                                        .token_bias = bias,
                                        .map = map});
  }
}

void adamw(benchmark::State& state) {
  Bench bench(state.range(1));
  const std::int64_t n = state.range(0);
  const Tensor param = bench.make({n}), m = bench.make({n}), v = bench.make({n}), grad = bench.make({n});
  bench.backend().fill(v, 1);
  measure(state, bench,
          AdamW{.param = param, .m = m, .v = v, .grad = grad, .step = {.lr = 1e-4f, .weight_decay = 0.1f}});
}

void add_sum_of_squares(benchmark::State& state) {
  Bench bench(state.range(1));
  const Tensor x = bench.make({state.range(0)});
  double total = 0;
  measure(state, bench, AddSumOfSquares{.out = Tensor(&total, DType::f64, {1}), .x = x});
}

/// c (M, N) = a (M, K) b^T with b (N, K), the model's forward product.
void matmul(benchmark::State& state) {
  Bench bench(state.range(3));
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Tensor c = bench.make({m, n}), a = bench.make({m, k}), b = bench.make({n, k});
  for (auto _ : state)
    bench.backend().run(Matmul{.c = c, .a = a, .b = b, .tb = Transpose::yes, .accumulate = Accumulate::no});
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 * static_cast<double>(m * n * k), benchmark::Counter::kIsIterationInvariantRate);
}

// Wall time: the work is done by OpenMP's threads.
BENCHMARK(copy)->ArgsProduct({{16 << 20}, {1, 2}})->UseRealTime();
BENCHMARK(add_column_sums)->ArgsProduct({{768, 50'257}, {1, 2}})->UseRealTime();
BENCHMARK(rmsnorm_forward)->ArgsProduct({{256, 768, 2048}, {1, 2}})->UseRealTime();
BENCHMARK(rmsnorm_backward)->ArgsProduct({{256, 768, 2048}, {1, 2}})->UseRealTime();
BENCHMARK(swiglu_forward)->ArgsProduct({{2048}, {1, 2}})->UseRealTime();
BENCHMARK(swiglu_backward)->ArgsProduct({{2048}, {1, 2}})->UseRealTime();
BENCHMARK(rope_forward)->ArgsProduct({{0}, {1, 2}})->UseRealTime();
BENCHMARK(attention_cached)
    ->Args({1, 1023, 12, 1})
    ->Args({1, 1023, 12, 2})
    ->Args({1, 1023, 4, 2})
    ->Args({1, 16'383, 4, 1})
    ->Args({1, 16'383, 4, 2})
    ->Args({8, 4095, 12, 2})
    ->UseRealTime();
BENCHMARK(embedding_forward)->ArgsProduct({{768}, {1, 2}})->UseRealTime();
BENCHMARK(embedding_backward)->ArgsProduct({{768}, {1, 2}})->UseRealTime();
BENCHMARK(add_member_means)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(add_member_means_backward)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(scatter_add_rows)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(cluster_log_probs)->ArgsProduct({{1, 2, 4, 16}, {256}, {1, 2}})->UseRealTime();
BENCHMARK(adamw)->ArgsProduct({{16 << 20}, {1, 2}})->UseRealTime();
BENCHMARK(add_sum_of_squares)->ArgsProduct({{16 << 20}, {1, 2}})->UseRealTime();
BENCHMARK(matmul)
    ->Args({1, 768, 768, 1})
    ->Args({64, 256, 256, 1})
    ->Args({256, 256, 256, 1})
    ->Args({4096, 768, 768, 1})
    ->Args({4096, 768, 768, 2})
    ->UseRealTime();

}  // namespace
}  // namespace vqlm

BENCHMARK_MAIN();
