// Seconds to make a corpus map. VQLM_BENCH_SHARDS: glob of token shards.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <iostream>

#include "core/cpu/cpu_backend.h"
#include "train/codes/corpus_map.h"

namespace vqlm {
namespace {

/// Arguments: K, G, Q, tokens in millions.
void corpus_map(benchmark::State& state) {
  const ShardSet shards(std::getenv("VQLM_BENCH_SHARDS"));
  const auto backend = make_cpu_backend(1);
  for (auto _ : state) {
    const CodeMap map = make_corpus_map(shards, *backend,
                                        {.clusters = state.range(0),
                                         .groups = static_cast<int>(state.range(1)),
                                         .codes = static_cast<int>(state.range(2)),
                                         .seed = 1,
                                         .max_tokens = static_cast<std::uint64_t>(state.range(3)) * 1'000'000});
    benchmark::DoNotOptimize(map.member_codes.data());
  }
  state.counters["V"] = static_cast<double>(shards.vocab_size());
}

}  // namespace
}  // namespace vqlm

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (std::getenv("VQLM_BENCH_SHARDS") == nullptr) {
    std::cerr << "corpus_map_bench: set VQLM_BENCH_SHARDS to a glob of token shards\n";
    return 2;
  }
  benchmark::RegisterBenchmark("corpus_map", vqlm::corpus_map)
      ->Args({128, 32, 128, 8})
      ->Args({256, 32, 256, 200})
      ->ArgNames({"K", "G", "Q", "Mtokens"})
      ->Iterations(1)
      ->Unit(benchmark::kSecond);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
