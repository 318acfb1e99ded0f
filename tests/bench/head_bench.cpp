// Forward and backward of the output heads over one micro-batch, so that their times can be compared in one run:
// the dense head's three products alone, the dense head with its softmax, and the whole VQ head. Arguments: vocabulary,
// width d, rows N, codes K = Q, groups G, threads. Targets are uniform (rows in every cluster, the VQ head's worst
// case) or follow Zipf's law (text).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"

namespace vqlm {
namespace {

enum class Targets { uniform, zipf };

/// Sizes, and the operands that both heads share.
class Batch {
 public:
  Batch(const benchmark::State& state, Targets kind)
      : vocabulary(state.range(0)),
        width(state.range(1)),
        rows(state.range(2)),
        codes(state.range(3)),
        groups(state.range(4)),
        backend(make_cpu_backend(static_cast<int>(state.range(5)))),
        h(random({rows, width})),
        dh(random({rows, width})),
        targets(integers({rows})),
        bias(random({vocabulary})),
        dbias(random({vocabulary})),
        nll(random({rows})),
        lse(random({rows})),
        statistics(random({1, rows, 3})) {
    const Philox rng(2, "targets");
    for (std::int64_t n = 0; n < rows; ++n) {
      const float u = rng.uniform(static_cast<std::uint64_t>(n));
      const double token = kind == Targets::uniform ? u * static_cast<double>(vocabulary)
                                                    : std::pow(static_cast<double>(vocabulary), double{u}) - 1;
      targets.i32()[n] = std::min(static_cast<std::int32_t>(vocabulary) - 1, static_cast<std::int32_t>(token));
    }
  }

  Tensor random(Shape shape) {
    const Tensor x = allocate(shape, DType::f32);
    const Philox rng(1, buffers_.size());
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      x.f32()[i] = i < 65536 ? 0.1f * rng.normal(static_cast<std::uint64_t>(i)) : x.f32()[i - 65536];
    }
    return x;
  }
  Tensor integers(Shape shape) { return allocate(shape, DType::i32); }
  Tensor allocate(Shape shape, DType type) {
    const auto bytes = static_cast<std::size_t>(shape.numel()) * size_of(type);
    buffers_.push_back(backend->allocate(bytes, MemoryUse::workspace));
    return buffers_.back().view(shape, type);
  }

  std::int64_t vocabulary, width, rows, codes, groups;
  std::unique_ptr<Backend> backend;

 private:
  std::vector<Buffer> buffers_;

 public:
  Tensor h, dh, targets, bias, dbias, nll, lse, statistics;
};

void report(benchmark::State& state, const Batch& batch, double flops) {
  state.SetItemsProcessed(state.iterations() * batch.rows);
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

/// Statistics, nll and gradient of logits whose targets lie among their columns.
void softmax(const Batch& batch, Tensor logits, Tensor bias, Tensor targets) {
  Backend& backend = *batch.backend;
  const std::int64_t rows = logits.extent(0);
  const Tensor statistics = batch.statistics.range(0, rows * 3);
  const Tensor nll = batch.nll.range(0, rows), lse = batch.lse.range(0, rows);
  backend.run(SoftmaxStatistics{.statistics = statistics.view({rows, 3}),
                                .logits = logits,
                                .bias = bias,
                                .targets = targets,
                                .classes = {.count = logits.extent(1)}});
  backend.run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics.view({1, rows, 3}), .targets = targets});
  backend.run(SoftmaxGradient{.logits = logits,
                              .bias = bias,
                              .lse = lse,
                              .targets = targets,
                              .classes = {.count = logits.extent(1)},
                              .scale = 1.0f});
}

/// The dense head in chunks of 256 rows; its products alone where with_softmax is false.
void dense(benchmark::State& state, bool with_softmax) {
  constexpr std::int64_t chunk = 256;
  Batch batch(state, Targets::uniform);
  Backend& backend = *batch.backend;
  const Tensor weight = batch.random({batch.vocabulary, batch.width}), dweight = batch.random(weight.shape());
  const Tensor logits = batch.random({chunk, batch.vocabulary});
  for (auto _ : state) {
    for (std::int64_t begin = 0; begin < batch.rows; begin += chunk) {
      const Tensor h = batch.h.rows(begin, chunk), dh = batch.dh.rows(begin, chunk);
      backend.run(Matmul{.c = logits, .a = h, .b = weight, .tb = Transpose::yes, .accumulate = Accumulate::no});
      if (with_softmax) {
        softmax(batch, logits, batch.bias, batch.targets.rows(begin, chunk));
        backend.run(AddColumnSums{.out = batch.dbias, .x = logits});
      }
      backend.run(Matmul{.c = dh, .a = logits, .b = weight, .accumulate = Accumulate::yes});
      backend.run(Matmul{.c = dweight, .a = logits, .b = h, .ta = Transpose::yes, .accumulate = Accumulate::yes});
    }
  }
  report(state, batch, 6.0 * static_cast<double>(batch.rows * batch.vocabulary * batch.width));
}

void dense_products(benchmark::State& state) {
  dense(state, false);
}
void dense_head(benchmark::State& state) {
  dense(state, true);
}

/// Clusters of equal size (to within one) in token order of a random deal, random sub-codes.
CodeMapView make_map(Batch& batch) {
  const std::int64_t vocabulary = batch.vocabulary, clusters = batch.codes;
  CodeMapView map;
  map.cluster_of_token = batch.integers({vocabulary});
  map.position_of_token = batch.integers({vocabulary});
  map.members = batch.integers({vocabulary});
  map.member_begin = batch.integers({clusters + 1});
  map.member_codes = batch.allocate({vocabulary, batch.groups}, DType::u8);
  const Philox rng(3, "map");
  for (std::int64_t v = 0; v < vocabulary; ++v) {
    map.cluster_of_token.i32()[v] = static_cast<std::int32_t>(v % clusters);
  }
  for (std::int64_t v = vocabulary - 1; v > 0; --v) {
    const auto other =
        static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(v), static_cast<std::uint64_t>(v) + 1));
    std::swap(map.cluster_of_token.i32()[v], map.cluster_of_token.i32()[other]);
  }
  std::int32_t position = 0;
  for (std::int64_t k = 0; k < clusters; ++k) {
    map.member_begin.i32()[k] = position;
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      if (map.cluster_of_token.i32()[v] != k) continue;
      map.members.i32()[position] = static_cast<std::int32_t>(v);
      map.position_of_token.i32()[v] = position++;
    }
  }
  map.member_begin.i32()[clusters] = position;
  for (std::int64_t i = 0; i < map.member_codes.numel(); ++i) {
    map.member_codes.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(
        rng.below(static_cast<std::uint64_t>(vocabulary + i), static_cast<std::uint64_t>(batch.codes)));
  }
  return map;
}

/// Where members' vectors come from.
enum class Members { coded, own };

/// (G, Q, d/G) or (V, d).
Shape shape_of(Members kind, const Batch& batch) {
  return kind == Members::own ? Shape({batch.vocabulary, batch.width})
                              : Shape({batch.groups, batch.codes, batch.width / batch.groups});
}

/// The whole VQ head, or its members' part alone.
void vq(benchmark::State& state, Targets kind, bool with_codes, Members vectors = Members::coded) {
  Batch batch(state, kind);
  Backend& backend = *batch.backend;
  const std::int64_t rows = batch.rows, codes = batch.codes;
  const CodeMapView map = make_map(batch);
  const Tensor codebook = batch.random({codes, batch.width}), dcodebook = batch.random(codebook.shape());
  const Tensor members = batch.random(shape_of(vectors, batch)), dmembers = batch.random(members.shape());
  const Tensor logits = batch.random({rows, codes}), code_bias = batch.random({codes});
  const Tensor dcode_bias = batch.random({codes});
  const Tensor clusters = batch.integers({rows}), order = batch.integers({rows});
  const Tensor row_begin = batch.integers({codes + 1});
  for (auto _ : state) {
    backend.run(SortRowsByCluster{
        .clusters = clusters, .order = order, .row_begin = row_begin, .targets = batch.targets, .map = map});
    if (with_codes) {
      backend.run(Matmul{.c = logits, .a = batch.h, .b = codebook, .tb = Transpose::yes, .accumulate = Accumulate::no});
      softmax(batch, logits, code_bias, clusters);
      backend.run(Matmul{.c = batch.dh, .a = logits, .b = codebook, .accumulate = Accumulate::yes});
      backend.run(
          Matmul{.c = dcodebook, .a = logits, .b = batch.h, .ta = Transpose::yes, .accumulate = Accumulate::yes});
      backend.run(AddColumnSums{.out = dcode_bias, .x = logits});
    }
    backend.run(MemberEntropy{.nll = batch.nll,
                              .gradients = {batch.dh, dmembers, batch.dbias, 1.0f},
                              .h = batch.h,
                              .targets = batch.targets,
                              .order = order,
                              .row_begin = row_begin,
                              .member_codebook = members,
                              .token_bias = batch.bias,
                              .map = map});
  }
  double products = with_codes ? static_cast<double>(rows * codes) : 0;
  for (std::int64_t k = 0; k < codes; ++k) {
    products += static_cast<double>(row_begin.i32()[k + 1] - row_begin.i32()[k]) *
                static_cast<double>(map.member_begin.i32()[k + 1] - map.member_begin.i32()[k]);
  }
  report(state, batch, 6.0 * products * static_cast<double>(batch.width));
}

void vq_head(benchmark::State& state) {
  vq(state, Targets::uniform, true);
}
void vq_head_zipf(benchmark::State& state) {
  vq(state, Targets::zipf, true);
}
void vq_members(benchmark::State& state) {
  vq(state, Targets::uniform, false);
}
void vq_members_zipf(benchmark::State& state) {
  vq(state, Targets::zipf, false);
}

void own_members(benchmark::State& state) {
  vq(state, Targets::uniform, false, Members::own);
}

/// Full log-probabilities of `rows` rows, as generation and evaluation ask for.
void log_probs_of(benchmark::State& state, std::int64_t rows, Members vectors) {
  Batch batch(state, Targets::uniform);
  const CodeMapView map = make_map(batch);
  const Tensor members = batch.random(shape_of(vectors, batch));
  const Tensor codes = batch.random({rows, batch.codes}), log_probs = batch.random({rows, batch.vocabulary});
  for (auto _ : state) {
    batch.backend->run(MemberLogProbs{.log_probs = log_probs,
                                      .h = batch.h.rows(0, rows),
                                      .code_log_probs = codes,
                                      .member_codebook = members,
                                      .token_bias = batch.bias,
                                      .map = map});
  }
  state.SetItemsProcessed(state.iterations() * rows);
}

void vq_log_probs(benchmark::State& state) {
  log_probs_of(state, 16, Members::coded);
}
void own_log_probs(benchmark::State& state) {
  log_probs_of(state, 16, Members::own);
}
void own_log_probs_of_one_row(benchmark::State& state) {
  log_probs_of(state, 1, Members::own);
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const std::int64_t threads : {1, 2}) bench->Args({50000, 512, 2048, 256, 32, threads});
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(dense_products)->Apply(sizes)->Iterations(2);
BENCHMARK(dense_head)->Apply(sizes)->Iterations(2);
BENCHMARK(vq_head)->Apply(sizes);
BENCHMARK(vq_head_zipf)->Apply(sizes);
BENCHMARK(vq_members)->Apply(sizes);
BENCHMARK(vq_members_zipf)->Apply(sizes);
BENCHMARK(own_members)->Apply(sizes);
BENCHMARK(own_log_probs)->Apply(sizes);
BENCHMARK(own_log_probs_of_one_row)->Apply(sizes);
BENCHMARK(vq_log_probs)->Apply(sizes);

}  // namespace
}  // namespace vqlm

BENCHMARK_MAIN();
