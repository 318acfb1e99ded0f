// Text to tokens, MB of text a second: the tokenizer alone, with the word cache, and all of `vqlm prepare` (reading,
// checking, encoding, writing shards). VQLM_BENCH_TEXT names a file of real text (JSON lines or plain, .gz and .zst too);
// without it the text is made up of 900 words, which flatters the cache. VQLM_BENCH_TOKENIZER names a tokenizer.json or
// another SentencePiece model than one trained on the text.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/prepare/document.h"
#include "data/prepare/prepare.h"
#include "data/prepare/tokenizer_sample.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_trainer.h"
#include "data/tokenizer/word_cache.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

constexpr std::size_t uncached_bytes = std::size_t{4} << 20;  // enough of the slow one

/// The text and a tokenizer for it, made once for all benchmarks.
struct Corpus {
  Corpus() {
    const char* named = std::getenv("VQLM_BENCH_TEXT");
    path = named != nullptr ? named : folder.file("made-up.json.gz");
    if (named == nullptr) write_bytes(path, gzip(json_lines(made_up_documents(1, 20'000))));
    TextReader reader(path);
    DocumentParser parser("text");
    for (TextReader::Record record; reader.next(record);) {
      const auto parsed = parser.parse(reader.format(), record);
      if (parsed.good) documents.emplace_back(parsed.text);
    }
    if (const char* tokenizer = std::getenv("VQLM_BENCH_TOKENIZER"); tokenizer != nullptr) {
      model = tokenizer;
      return;
    }
    const std::int64_t pieces = named != nullptr ? 16'000 : 1'000;
    model = folder.file("sp.model");
    write_bytes(model, train_tokenizer(sample_documents({path}, {}), {pieces, 2}));
  }

  TemporaryFolder folder;
  std::string path;
  std::string model;
  std::vector<std::string> documents;
};

Corpus& corpus() {
  static Corpus made;
  return made;
}

/// Encodes whole documents, up to `limit` bytes of them.
template <class Encode>
void encode_documents(benchmark::State& state, std::size_t limit, Encode encode) {
  std::vector<std::uint32_t> ids;
  std::int64_t bytes = 0;
  std::size_t tokens = 0;
  for (auto _ : state) {
    std::size_t done = 0;
    for (const std::string& document : corpus().documents) {
      ids.clear();
      encode(document, ids);
      done += document.size();
      tokens += ids.size();
      if (done > limit) break;
    }
    bytes += static_cast<std::int64_t>(done);
  }
  state.SetBytesProcessed(bytes);
  state.counters["tokens/byte"] = static_cast<double>(tokens) / static_cast<double>(bytes);
}

void tokenizer_alone(benchmark::State& state) {
  const Tokenizer tokenizer = Tokenizer::open(corpus().model);
  encode_documents(state, uncached_bytes, [&](const auto& text, auto& ids) { tokenizer.encode(text, ids); });
}

/// The cache begins empty in every iteration.
void word_cache_cold(benchmark::State& state) {
  const Tokenizer tokenizer = Tokenizer::open(corpus().model);
  std::optional<WordCache> words;
  const std::string* first = corpus().documents.data();
  encode_documents(state, SIZE_MAX, [&](const auto& text, auto& ids) {
    if (&text == first) words.emplace(tokenizer);
    words->encode(text, ids);
  });
  state.counters["misses"] = static_cast<double>(words->misses()) / static_cast<double>(words->lookups());
}

void word_cache_warm(benchmark::State& state) {
  const Tokenizer tokenizer = Tokenizer::open(corpus().model);
  WordCache words(tokenizer);
  encode_documents(state, SIZE_MAX, [&](const auto& text, auto& ids) { words.encode(text, ids); });
}

/// Only the reader and the parser: what is left of the pipeline without tokenizer and shards.
void read_and_parse(benchmark::State& state) {
  std::int64_t bytes = 0;
  for (auto _ : state) {
    TextReader reader(corpus().path);
    DocumentParser parser("text");
    for (TextReader::Record record; reader.next(record);) {
      bytes += static_cast<std::int64_t>(parser.parse(reader.format(), record).text.size());
    }
  }
  state.SetBytesProcessed(bytes);
}

/// All of it with a given tokenizer and so many encoding threads; MB/s of wall time.
void prepare_shards(benchmark::State& state) {
  std::int64_t bytes = 0;
  for (auto _ : state) {
    PrepareOptions options;
    options.inputs = {corpus().path};
    options.tokenizer = corpus().model;
    options.out = corpus().folder.file("shards");
    options.jobs = static_cast<int>(state.range(0));
    bytes += static_cast<std::int64_t>(prepare(options).text_bytes_encoded);
    state.PauseTiming();
    std::filesystem::remove_all(options.out);
    state.ResumeTiming();
  }
  state.SetBytesProcessed(bytes);
}

BENCHMARK(tokenizer_alone)->Unit(benchmark::kMillisecond);
BENCHMARK(word_cache_cold)->Unit(benchmark::kMillisecond);
BENCHMARK(word_cache_warm)->Unit(benchmark::kMillisecond);
BENCHMARK(read_and_parse)->Unit(benchmark::kMillisecond);
BENCHMARK(prepare_shards)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime()->MeasureProcessCPUTime();

}  // namespace
}  // namespace vqlm

BENCHMARK_MAIN();
