// Tokens a second from compressed shards, one core. VQLM_BENCH_TOKENS names a text file of token ids (white space
// between; "0" ends a document); without it ids are drawn from a Zipf law, which compress like real ones.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/rng.h"
#include "data/shards/batch_loader.h"
#include "tests/data/temporary_folder.h"

namespace vqlm {
namespace {

constexpr std::int64_t vocab_size = 16'384;

std::vector<std::uint32_t> zipf_tokens(std::size_t n) {
  // Inverse of the law's cumulative sum, P(rank) ~ 1 / (rank + 2.7): rank = 2.7 (exp(u log((V + 2.7) / 2.7)) - 1).
  const Philox rng(1, "zipf");
  const double scale = std::log((vocab_size + 2.7) / 2.7);
  std::vector<std::uint32_t> tokens(n);
  for (std::size_t i = 0; i < n; ++i) {
    tokens[i] = static_cast<std::uint32_t>(2.7 * (std::exp(rng.uniform(i) * scale) - 1));
    if (i % 400 == 399) tokens[i] = 0;
  }
  return tokens;
}

std::vector<std::uint32_t> bench_tokens() {
  const char* path = std::getenv("VQLM_BENCH_TOKENS");
  if (path == nullptr) return zipf_tokens(32'000'000);
  std::ifstream in(path);
  std::vector<std::uint32_t> tokens;
  for (std::uint32_t token = 0; in >> token;) tokens.push_back(token);
  return tokens;
}

/// A shard of the bench tokens in a temporary folder.
struct BenchShard {
  BenchShard() {
    const auto tokens = bench_tokens();
    ShardWriter writer(path, {vocab_size, 0, "bench", {}});
    for (std::size_t begin = 0; begin < tokens.size();) {
      std::size_t end = begin;
      while (end < tokens.size() && tokens[end] != 0) ++end;
      end = std::min(end + 1, tokens.size());
      writer.add_document(std::span(tokens).subspan(begin, end - begin), 4 * (end - begin));
      begin = end;
    }
    writer.finish();
    stored = static_cast<double>(std::filesystem::file_size(path)) / (2.0 * static_cast<double>(tokens.size()));
  }

  TemporaryFolder folder;
  std::string path = folder.file("bench.h5");
  double stored = 0;  // bytes in the file per byte of uint16 tokens
};

/// Random windows of T + 1 tokens in the loader's order, on this thread. Arguments: T, cache in MiB.
void permuted_windows(benchmark::State& state, const BenchShard& shard) {
  ShardSet set(shard.path);
  set.set_cache_bytes(static_cast<std::size_t>(state.range(1)) << 20);
  const auto seq_len = static_cast<std::uint64_t>(state.range(0));
  const std::uint64_t samples = (set.total_tokens() - 1) / seq_len;
  const Permutation permutation(samples, 1, 0);
  std::vector<std::int32_t> window(seq_len + 1);
  std::uint64_t i = 0;
  for (auto _ : state) {
    set.read(permutation(i++ % samples) * seq_len, window);
    benchmark::DoNotOptimize(window.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(2 * seq_len) * state.iterations());
  state.counters["stored"] = shard.stored;
}

/// The loader itself: batches of 16 rows, the reading thread included in the time. Argument: T.
void loader_batches(benchmark::State& state, const BenchShard& shard) {
  BatchLoader loader(ShardSet(shard.path), {.seq_len = state.range(0), .micro_batch = 16, .global_batch = 16});
  for (auto _ : state) benchmark::DoNotOptimize(loader.next().tokens.data());
  state.SetBytesProcessed(2 * 16 * state.range(0) * state.iterations());
}

/// The stream in order, as evaluation and counting read it.
void in_order(benchmark::State& state, const BenchShard& shard) {
  ShardSet set(shard.path);
  std::vector<std::int32_t> window(65'536);
  std::uint64_t begin = 0;
  for (auto _ : state) {
    if (begin + window.size() > set.total_tokens()) begin = 0;
    set.read(begin, window);
    begin += window.size();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(2 * window.size()) * state.iterations());
}

}  // namespace
}  // namespace vqlm

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const vqlm::BenchShard shard;
  benchmark::RegisterBenchmark("permuted_windows",
                               [&shard](benchmark::State& state) { vqlm::permuted_windows(state, shard); })
      ->ArgsProduct({{256, 1024, 2048}, {1, 64}})
      ->ArgNames({"T", "cache_MiB"});
  benchmark::RegisterBenchmark("loader_batches",
                               [&shard](benchmark::State& state) { vqlm::loader_batches(state, shard); })
      ->Arg(256)
      ->Arg(1024)
      ->Arg(2048)
      ->UseRealTime();
  benchmark::RegisterBenchmark("in_order", [&shard](benchmark::State& state) { vqlm::in_order(state, shard); });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
