// vqlm codes: makes, re-fits, inspects and compares code maps.
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "launch/commands/codes_job.h"
#include "launch/commands/commands.h"
#include "train/codes/map_report.h"
#include "train/config/model_text.h"
#include "train/models/open_model.h"

namespace vqlm {
namespace {

struct CodesArguments {
  std::vector<std::string> files;
  std::string data, tokenizer, from, json;
  std::vector<std::int64_t> clusters;
  int words = 12;
  int contexts = 2000;
  std::uint64_t max_tokens = counted_tokens;
};

void check_vocabulary(const KnownMap& known, std::int64_t vocab_size, const std::string& what) {
  if (known.map.vocab_size == vocab_size) return;
  throw UsageError(
      fmt::format("{}: a map of {} tokens; {} has {}", known.path, known.map.vocab_size, what, vocab_size));
}

void take_vectors_of(KnownMap& known, const std::string& from) {
  const auto source = open_model(from);
  if (kind_of(source->head()) != HeadKind::dense) {
    throw UsageError(fmt::format("--from {}: its head is {}; name a model with a dense head", from,
                                 head_text(source->model(), source->head())));
  }
  check_vocabulary(known, source->model().vocab_size, "--from " + from);
  const char* name = source->model().tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  known.evidence.dims = source->model().d_model;
  known.evidence.vectors = source->read(name, {0, 0}, {known.map.vocab_size, known.evidence.dims});
  if (known.map.groups > 0 && known.evidence.dims % known.map.groups != 0) {
    throw UsageError(
        fmt::format("--from {}: {} groups do not divide its width {}", from, known.map.groups, known.evidence.dims));
  }
}

std::optional<Tokenizer> tokenizer_of(const CodesArguments& options) {
  std::filesystem::path path = options.tokenizer;
  if (path.empty() && !options.data.empty()) {
    path = std::filesystem::path(ShardSet(options.data).shards().front().path).parent_path();
    if (!Tokenizer::is_in(path.string())) return std::nullopt;
  }
  if (path.empty()) return std::nullopt;
  if (!options.tokenizer.empty()) return Tokenizer::open(path.string());
  try {
    return Tokenizer::open(path.string());
  } catch (const Error& error) {  // one that is only carried along
    log::info("{}; ids instead of words", error.what());
    return std::nullopt;
  }
}

void show(const CodesArguments& options, Environment& environment) {
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

void compare(const CodesArguments& options, Environment& environment) {
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
    comparison.with_first.push_back(cluster_agreement(maps.front().map.cluster_of_token, known.map.cluster_of_token));
  }
  std::fputs(comparison_text(maps, comparison).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, comparison_json(maps, comparison));
}

void add_reading_options(CLI::App& command, CodesArguments& options, const char* data) {
  command.add_option("--data", options.data, data)->type_name("GLOB");
  command.add_option("--max-tokens", options.max_tokens, "count so many, spread evenly over the shards")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command.add_option("--json", options.json, "write what is found into this file, too")->type_name("FILE");
}

void add_show(CLI::App& codes) {
  CLI::App* command = codes.add_subcommand("show", "Print what a map is like");
  const auto options = std::make_shared<CodesArguments>();
  command->add_option("FILE", options->files, "the map")->required()->expected(1);
  add_reading_options(*command, *options, "shards: counts in place of those in the file, and their tokenizer");
  command
      ->add_option("--tokenizer", options->tokenizer, "tokenizer.model or tokenizer.json, or its folder, for the words")
      ->type_name("PATH");
  command->add_option("--from", options->from, "a model with a dense head: its rows in place of the file's vectors")
      ->type_name("MODEL");
  command->add_option("--clusters", options->clusters, "which clusters' words (default: 5 frequent, 5 random)")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--words", options->words, "words of each cluster")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  command->footer(
      "docs/codes.md says what the numbers mean.\n"
      "Examples:\n"
      "  vqlm codes show runs/a/code_map.h5 --tokenizer shards\n"
      "  vqlm codes show map.h5 --data 'shards/train-*.h5' --clusters 0,5,17 --words 20");
  command->callback([options] { run_job([&](Environment& environment) { show(*options, environment); }); });
}

void add_compare(CLI::App& codes) {
  CLI::App* command = codes.add_subcommand("compare", "Print maps of one vocabulary side by side");
  const auto options = std::make_shared<CodesArguments>();
  command->add_option("FILES", options->files, "the maps")->required();
  add_reading_options(*command, *options, "shards: what the previous token tells about the next one's cluster");
  command->add_option("--contexts", options->contexts, "the most frequent tokens told apart as previous ones")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->footer(
      "docs/codes.md says what the columns mean.\n"
      "Examples:\n"
      "  vqlm codes compare map.h5 runs/a/code_map.h5\n"
      "  vqlm codes compare map.h5 runs/a/code_map.h5 --data 'shards/heldout-*.h5'");
  command->callback([options] { run_job([&](Environment& environment) { compare(*options, environment); }); });
}

}  // namespace

void add_codes_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("codes", "Make, re-fit, inspect and compare code maps of VQ heads");
  command->require_subcommand(1);
  add_codes_make(*command);
  add_codes_refit(*command);
  add_show(*command);
  add_compare(*command);
  command->footer(
      "docs/codes.md says more.\n"
      "Examples:\n"
      "  mpirun -n 4 vqlm codes make --data 'shards/train-*.h5' --clusters 256 --codes 256 --out map.h5\n"
      "  mpirun -n 4 vqlm codes refit --checkpoint runs/a --data 'shards/train-*.h5' --out refit.h5\n"
      "  vqlm codes show map.h5 --tokenizer shards\n"
      "  vqlm codes compare map.h5 runs/a/code_map.h5 --data 'shards/heldout-*.h5'");
}

}  // namespace vqlm
