// vqlm codes: makes, inspects and compares code maps.
#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "core/log.h"
#include "data/atomic_file.h"
#include "data/code_map_file.h"
#include "data/tokenizer_files.h"
#include "launch/commands.h"
#include "launch/environment.h"
#include "train/codes/map_maker.h"
#include "train/codes/map_report.h"
#include "train/convert/vq_fit.h"

namespace vqlm {
namespace {

constexpr std::uint64_t default_tokens = 200'000'000;  // as many as `vqlm train` counts

struct MakeOptions {
  std::string data, map = "corpus", from, out, neighbours = "both", vectors = "ppmi";
  CorpusMapOptions fit{.max_tokens = default_tokens};
  bool force = false, keep_vectors = false;
};

struct ShowOptions {
  std::vector<std::string> files;
  std::string data, tokenizer, from, json;
  std::vector<std::int64_t> clusters;
  int words = 12;
  int contexts = 2000;
  std::uint64_t max_tokens = default_tokens;
};

/// A job on CPUs: its ranks share the counting.
struct CountingJob {
  explicit CountingJob(Environment& environment)
      : backend(make_cpu_backend(environment.threads(0))),
        world(environment.mpi().split(0, environment.mpi().rank(), "world")),
        ranks(counting_ranks(*backend, *world)) {}

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> world;
  CountingRanks ranks;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check_make_options(const CLI::App& command, const MakeOptions& options) {
  const bool dense = options.map == "from-dense";
  if (dense == options.from.empty()) {
    throw UsageError(dense ? "--map from-dense: name the model whose rows it is made of with --from"
                           : "--from: only with --map from-dense");
  }
  if (!dense && options.data.empty()) {
    throw UsageError(fmt::format("--map {}: name the training shards with --data", options.map));
  }
  for (const char* option : {"--vectors", "--neighbours", "--dims", "--contexts", "--keep-vectors"}) {
    if (command.count(option) > 0 && options.map != "corpus") {
      throw UsageError(fmt::format("{}: only with --map corpus", option));
    }
  }
  if (dense && options.fit.own_tokens > 0) {
    throw UsageError("--own-tokens: not with --map from-dense, whose clusters are those of the matrix' rows");
  }
  if (options.fit.own_tokens > 0 && options.fit.own_tokens >= options.fit.clusters) {
    throw UsageError(fmt::format("--own-tokens {}: it must be below --clusters {}", options.fit.own_tokens,
                                 options.fit.clusters));
  }
  if (!options.force && std::filesystem::exists(options.out)) {
    throw UsageError(fmt::format("--out {}: is there already; remove it, choose another name, or say --force",
                                 options.out));
  }
}

/// Rows of a trained dense matrix, as `vqlm convert --head vq` takes them. The root's alone.
FittedMap map_from_dense(const MakeOptions& options, const std::vector<std::int64_t>& counts,
                         Backend& backend) {
  const auto source = open_model(options.from);
  if (source->head().kind != HeadKind::dense) {
    throw UsageError(
        fmt::format("--from {}: its head is a VQ one; name a model with a dense head", options.from));
  }
  TextStatistics text{.counts = counts, .mean_hidden = {}};
  const std::int64_t vocab_size = source->model().vocab_size;
  if (static_cast<std::int64_t>(counts.size()) > vocab_size) {
    throw UsageError(
        fmt::format("--from {}: has {} tokens, the shards of --data {}; name shards of its tokenizer",
                    options.from, vocab_size, counts.size()));
  }
  if (!counts.empty()) text.counts.resize(static_cast<std::size_t>(vocab_size), 0);  // padding rows
  const VqFitOptions sizes{.clusters = options.fit.clusters,
                           .groups = options.fit.groups,
                           .codes = options.fit.groups > 0 ? options.fit.codes : 0,
                           .seed = options.fit.seed};
  const VqFit fit = fit_vq_head(*source, sizes, text, backend);
  log::info("variance of the rows kept: {:.2f} % by the clusters, {:.2f} % with the codes",
            100 * fit.kept_by_clusters, 100 * fit.kept_by_codes);
  return {.map = fit.model->code_map().value(), .dims = 0, .vectors = {}};
}

void make(const CLI::App& command, MakeOptions options, Environment& environment) {
  const std::map<std::string, VectorKind> kinds{
      {"ppmi", VectorKind::ppmi}, {"indexing", VectorKind::indexing}, {"chi-square", VectorKind::chi_square}};
  const std::map<std::string, std::vector<int>> neighbours{
      {"both", {1, -1}}, {"before", {-1}}, {"before2", {-1, -2}}, {"both2", {1, -1, 2, -2}}};
  options.fit.vectors = kinds.at(options.vectors);
  options.fit.offsets = neighbours.at(options.neighbours);
  check_make_options(command, options);
  const auto start = std::chrono::steady_clock::now();
  const CountingJob job(environment);
  std::vector<std::int64_t> counts;
  FittedMap fitted;
  if (!options.data.empty()) {
    const ShardSet shards(options.data);
    counts = count_tokens(shards, options.fit.max_tokens, job.ranks);
    if (is_made_map(options.map)) {
      fitted = make_code_map(options.map, options.fit, shards, counts, *job.backend, job.ranks);
    }
  }
  if (!environment.is_root()) return;
  if (options.map == "from-dense") fitted = map_from_dense(options, counts, *job.backend);
  counts.resize(counts.empty() ? 0 : static_cast<std::size_t>(fitted.map.vocab_size), 0);
  MapEvidence evidence{.counts = std::move(counts), .dims = 0, .vectors = {}};
  if (options.keep_vectors) {
    evidence.dims = fitted.dims;
    evidence.vectors = std::move(fitted.vectors);
  }
  save_code_map(options.out, fitted.map, evidence);
  const CodeMap& map = fitted.map;
  fmt::print("{}: {} tokens in {} clusters, {}; {}; {:.1f} s\n", options.out, map.vocab_size, map.clusters,
             map.groups > 0 ? fmt::format("{} groups of {} codes", map.groups, map.codes) : "no codes",
             map.provenance, seconds_since(start));
}

void check_vocabulary(const KnownMap& known, std::int64_t vocab_size, const std::string& what) {
  if (known.map.vocab_size == vocab_size) return;
  throw UsageError(
      fmt::format("{}: a map of {} tokens; {} has {}", known.path, known.map.vocab_size, what, vocab_size));
}

void take_vectors_of(KnownMap& known, const std::string& from) {
  const auto source = open_model(from);
  if (source->head().kind != HeadKind::dense) {
    throw UsageError(fmt::format("--from {}: its head is a VQ one; name a model with a dense head", from));
  }
  check_vocabulary(known, source->model().vocab_size, "--from " + from);
  const char* name = source->model().tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  known.evidence.dims = source->model().d_model;
  known.evidence.vectors = source->read(name, {0, 0}, {known.map.vocab_size, known.evidence.dims});
  if (known.map.groups > 0 && known.evidence.dims % known.map.groups != 0) {
    throw UsageError(fmt::format("--from {}: {} groups do not divide its width {}", from, known.map.groups,
                                 known.evidence.dims));
  }
}

std::optional<Tokenizer> tokenizer_of(const ShowOptions& options) {
  std::filesystem::path path = options.tokenizer;
  if (path.empty() && !options.data.empty()) {
    path = std::filesystem::path(ShardSet(options.data).shards().front().path).parent_path();
    if (!std::filesystem::exists(path / "tokenizer.model")) return std::nullopt;
  }
  if (path.empty()) return std::nullopt;
  if (std::filesystem::is_directory(path)) path /= "tokenizer.model";
  return Tokenizer::load(path.string());
}

void show(const ShowOptions& options, Environment& environment) {
  const CountingJob job(environment);
  KnownMap known = open_map(options.files.front());
  if (!options.data.empty()) {
    const ShardSet shards(options.data);
    check_vocabulary(known, shards.vocab_size(), "--data " + options.data);
    known.evidence.counts = count_tokens(shards, options.max_tokens, job.ranks);
  }
  if (!environment.is_root()) return;
  if (!options.from.empty()) take_vectors_of(known, options.from);
  const std::optional<Tokenizer> tokenizer = tokenizer_of(options);
  const MapSummary summary = summarise(known);
  const ClusterWords words{choose_clusters(known, summary, options.clusters, 5), options.words};
  const Tokenizer* pieces = tokenizer ? &*tokenizer : nullptr;
  std::fputs(map_text(known, summary, words, pieces).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, map_json(known, summary, words, pieces));
}

void compare(const ShowOptions& options, Environment& environment) {
  const CountingJob job(environment);
  std::vector<KnownMap> maps;
  for (const std::string& file : options.files) {
    maps.push_back(open_map(file));
    check_vocabulary(maps.back(), maps.front().map.vocab_size, maps.front().path);
  }
  MapComparison comparison;
  if (!options.data.empty()) {
    const ShardSet shards(options.data);
    check_vocabulary(maps.front(), shards.vocab_size(), "--data " + options.data);
    const auto counts = count_tokens(shards, options.max_tokens, job.ranks);
    const BigramTable table = count_bigrams(shards, options.max_tokens, counts, options.contexts, job.ranks);
    comparison.token_information = previous_token_information(table);
    for (KnownMap& known : maps) {
      known.evidence.counts = counts;
      comparison.information.push_back(
          previous_token_information(table, known.map.cluster_of_token, known.map.clusters));
    }
  }
  if (!environment.is_root()) return;
  for (const KnownMap& known : maps) {
    comparison.summaries.push_back(summarise(known));
    comparison.with_first.push_back(
        cluster_agreement(maps.front().map.cluster_of_token, known.map.cluster_of_token));
  }
  std::fputs(comparison_text(maps, comparison).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, comparison_json(maps, comparison));
}

void add_make(CLI::App& codes) {
  CLI::App* command = codes.add_subcommand("make", "Make a map, alone or under mpirun, and write it");
  const auto options = std::make_shared<MakeOptions>();
  command->add_option("--data", options->data, "glob of the training shards")->type_name("GLOB");
  command->add_option("--map", options->map, "corpus (default), frequency, contiguous, random or from-dense")
      ->check(CLI::IsMember({"corpus", "frequency", "contiguous", "random", "from-dense"}));
  command->add_option("--from", options->from, "from-dense: a checkpoint, run or Hugging Face folder")
      ->type_name("MODEL");
  command->add_option("--out", options->out, "the file to write, for head.map")
      ->required()
      ->type_name("FILE");
  command->add_flag("--force", options->force, "replace a file that is there");
  command->add_option("--clusters", options->fit.clusters, "K")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--codes", options->fit.codes, "Q, at most 256")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  command->add_option("--groups", options->fit.groups, "G; 0: no member codes")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--own-tokens", options->fit.own_tokens,
                   "the most frequent tokens with own clusters, of the K")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", options->fit.seed, "of clusters and codes")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-tokens", options->fit.max_tokens, "count so many, spread evenly over the shards")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--vectors", options->vectors, "corpus: ppmi (default), indexing or chi-square")
      ->check(CLI::IsMember({"ppmi", "indexing", "chi-square"}));
  command->add_option("--neighbours", options->neighbours, "corpus: both (default), before, before2 or both2")
      ->check(CLI::IsMember({"both", "before", "before2", "both2"}));
  command->add_option("--dims", options->fit.dims, "corpus: of the vectors, rounded up to a multiple of G")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command
      ->add_option("--contexts", options->fit.contexts,
                   "corpus: the most frequent tokens that count as neighbours")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_flag("--keep-vectors", options->keep_vectors,
                    "corpus: write the vectors, too, for `codes show`");
  command->callback([command, options] {
    run_job([&](Environment& environment) { make(*command, *options, environment); });
  });
}

void add_reading_options(CLI::App& command, ShowOptions& options, const char* data) {
  command.add_option("--data", options.data, data)->type_name("GLOB");
  command.add_option("--max-tokens", options.max_tokens, "count so many, spread evenly over the shards")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--json", options.json, "write what is found into this file, too")->type_name("FILE");
}

void add_show(CLI::App& codes) {
  CLI::App* command = codes.add_subcommand("show", "Print what a map is like");
  const auto options = std::make_shared<ShowOptions>();
  command->add_option("FILE", options->files, "the map")->required()->expected(1);
  add_reading_options(*command, *options,
                      "shards: counts in place of those in the file, and their tokenizer");
  command->add_option("--tokenizer", options->tokenizer, "tokenizer.model, or its folder, for the words")
      ->type_name("PATH");
  command
      ->add_option("--from", options->from,
                   "a model with a dense head: its rows in place of the file's vectors")
      ->type_name("MODEL");
  command
      ->add_option("--clusters", options->clusters, "which clusters' words (default: 5 frequent, 5 random)")
      ->delimiter(',')
      ->expected(1);
  command->add_option("--words", options->words, "words of each cluster")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  command->callback([options] { run_job([&](Environment& environment) { show(*options, environment); }); });
}

void add_compare(CLI::App& codes) {
  CLI::App* command = codes.add_subcommand("compare", "Print maps of one vocabulary side by side");
  const auto options = std::make_shared<ShowOptions>();
  command->add_option("FILES", options->files, "the maps")->required();
  add_reading_options(*command, *options,
                      "shards: what the previous token tells about the next one's cluster");
  command->add_option("--contexts", options->contexts, "the most frequent tokens told apart as previous ones")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback(
      [options] { run_job([&](Environment& environment) { compare(*options, environment); }); });
}

}  // namespace

void add_codes_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("codes", "Make, inspect and compare code maps of VQ heads");
  command->require_subcommand(1);
  add_make(*command);
  add_show(*command);
  add_compare(*command);
  command->footer(
      "Examples:\n"
      "  mpirun -n 4 vqlm codes make --data 'shards/train-*.h5' --clusters 256 --codes 256 --out map.h5\n"
      "  vqlm codes show map.h5 --tokenizer shards\n"
      "  vqlm codes compare map.h5 runs/a/code_map.h5 --data 'shards/heldout-*.h5'\n"
      "docs/codes.md says more.");
}

}  // namespace vqlm
