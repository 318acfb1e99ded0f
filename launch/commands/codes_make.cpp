// vqlm codes make: a map from shards or from a trained dense head.
#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "launch/commands/codes_job.h"
#include "train/codes/code_map_file.h"
#include "train/config/model_text.h"
#include "train/models/open_model.h"
#include "train/tools/convert/vq_fit.h"

namespace vqlm {
namespace {

struct CodesMakeArguments {
  std::string data, map = "corpus", from, out, neighbours = "both", vectors = "ppmi";
  CorpusMapOptions fit{.max_tokens = counted_tokens};
  bool force = false, keep_vectors = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check_make_options(const CLI::App& command, const CodesMakeArguments& options) {
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
    throw UsageError(
        fmt::format("--own-tokens {}: it must be below --clusters {}", options.fit.own_tokens, options.fit.clusters));
  }
  refuse_existing(options.out, options.force);
}

/// Rows of a trained dense matrix, as `vqlm convert --head vq` takes them. The root's alone.
FittedMap map_from_dense(const CodesMakeArguments& options, const std::vector<std::int64_t>& counts, Backend& backend) {
  const auto source = open_model(options.from);
  if (kind_of(source->head()) != HeadKind::dense) {
    throw UsageError(fmt::format("--from {}: its head is {}; name a model with a dense head", options.from,
                                 head_text(source->model(), source->head())));
  }
  TextStatistics text{.counts = counts, .mean_hidden = {}, .hidden = {}};
  const std::int64_t vocab_size = source->model().vocab_size;
  if (static_cast<std::int64_t>(counts.size()) > vocab_size) {
    throw UsageError(fmt::format("--from {}: has {} tokens, the shards of --data {}; name shards of its tokenizer",
                                 options.from, vocab_size, counts.size()));
  }
  if (!counts.empty()) text.counts.resize(static_cast<std::size_t>(vocab_size), 0);  // padding rows
  const VqFitOptions sizes{.clusters = options.fit.clusters,
                           .groups = options.fit.groups,
                           .codes = options.fit.groups > 0 ? options.fit.codes : 0,
                           .seed = options.fit.seed};
  const VqFit fit = fit_vq_head(*source, sizes, text, backend);
  log::info("variance of the rows kept: {:.2f} % by the clusters, {:.2f} % with the codes", 100 * fit.kept_by_clusters,
            100 * fit.kept_by_codes);
  return {.map = fit.model->code_map().value(), .dims = 0, .vectors = {}};
}

void make(const CLI::App& command, CodesMakeArguments options, Environment& environment) {
  const std::map<std::string, VectorKind> kinds{{"ppmi", VectorKind::ppmi}, {"chi-square", VectorKind::chi_square}};
  const std::map<std::string, std::vector<int>> neighbours{
      {"both", {1, -1}}, {"before", {-1}}, {"before2", {-1, -2}}, {"both2", {1, -1, 2, -2}}};
  options.fit.vectors = kinds.at(options.vectors);
  options.fit.offsets = neighbours.at(options.neighbours);
  check_make_options(command, options);
  const auto start = std::chrono::steady_clock::now();
  const CountingJob job(environment);
  std::vector<std::int64_t> counts;
  FittedMap fitted;
  std::string counted;
  if (!options.data.empty()) {
    const TextToCount text(ShardSet(options.data), options.fit.max_tokens);
    counts = count_tokens(text, job.ranks);
    counted = fmt::format("counted {} of the shards' {} tokens; ", text.tokens(), text.shards().total_tokens());
    if (is_made_map(options.map)) {
      fitted = make_code_map(options.map, options.fit, text, counts, *job.backend, job.ranks);
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
  fmt::print("{}: {}; {}; {}{:.1f} s\n", options.out, sizes_text(fitted.map), fitted.map.provenance, counted,
             seconds_since(start));
}

}  // namespace

void refuse_existing(const std::string& out, bool force) {
  if (force || !std::filesystem::exists(out)) return;
  throw UsageError(fmt::format("--out {}: is there already; remove it, choose another name, or say --force", out));
}

std::string sizes_text(const CodeMap& map) {
  return fmt::format("{} tokens in {} clusters, {}", map.vocab_size, map.clusters,
                     map.groups > 0 ? fmt::format("{} groups of {} codes", map.groups, map.codes) : "no codes");
}

void add_codes_make(CLI::App& codes) {
  CLI::App* command = codes.add_subcommand("make", "Make a map, alone or under mpirun, and write it");
  const auto options = std::make_shared<CodesMakeArguments>();
  command->add_option("--data", options->data, "glob of the training shards")->type_name("GLOB");
  command->add_option("--map", options->map, "corpus (default), frequency, contiguous, random or from-dense")
      ->check(CLI::IsMember({"corpus", "frequency", "contiguous", "random", "from-dense"}));
  command->add_option("--from", options->from, "from-dense: a checkpoint, run or Hugging Face folder")
      ->type_name("MODEL");
  command->add_option("--out", options->out, "the file to write, for head.map")->required()->type_name("FILE");
  command->add_flag("--force", options->force, "replace a file that is there");
  command->add_option("--clusters", options->fit.clusters, "K")->capture_default_str()->check(CLI::PositiveNumber);
  command->add_option("--codes", options->fit.codes, "Q, at most 256")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  command->add_option("--groups", options->fit.groups, "G; 0: no member codes")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--own-tokens", options->fit.own_tokens, "the most frequent tokens with own clusters, of the K")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", options->fit.seed, "of clusters and codes")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-tokens", options->fit.max_tokens, "count so many, spread evenly over the shards")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--vectors", options->vectors, "corpus: ppmi (default) or chi-square")
      ->check(CLI::IsMember({"ppmi", "chi-square"}));
  command->add_option("--neighbours", options->neighbours, "corpus: both (default), before, before2 or both2")
      ->check(CLI::IsMember({"both", "before", "before2", "both2"}));
  command->add_option("--dims", options->fit.dims, "corpus: of the vectors, rounded up to a multiple of G")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command->add_option("--contexts", options->fit.contexts, "corpus: the most frequent tokens that count as neighbours")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_flag("--keep-vectors", options->keep_vectors, "corpus: write the vectors, too, for `codes show`");
  command->footer(
      "The file is the same for every number of ranks. docs/codes.md says more.\n"
      "Examples:\n"
      "  mpirun -n 4 vqlm codes make --data 'demo/shards/train-*.h5' --map corpus --clusters 256 --groups 0 --out map.h5\n"
      "  vqlm train --config configs/demo-vq.toml --set head.map=map.h5 --set head.clusters=256 --set run.dir=runs/b");
  command->callback(
      [command, options] { run_job([&](Environment& environment) { make(*command, *options, environment); }); });
}

}  // namespace vqlm
