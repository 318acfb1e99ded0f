// vqlm codes refit: a map for a trained VQ head, from its model's hidden states.
#include <spdlog/fmt/fmt.h>

#include <memory>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "launch/command_line.h"
#include "launch/commands/codes_job.h"
#include "train/codes/code_map_file.h"
#include "train/codes/map_refit.h"
#include "train/engine/stopwatch.h"
#include "train/models/carried_model.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/tools/refit/gather_class_sums.h"

namespace vqlm {
namespace {

struct CodesRefitArguments {
  std::string checkpoint, data, out;
  GatherOptions gather{.tokens = 4'000'000, .dims = 64};
  std::optional<std::int64_t> own_tokens;
  std::int64_t batch = 0;
  DeviceKind device = DeviceKind::automatic;
  bool force = false;
};

RefitOptions refit_options(const CodesRefitArguments& options, const ModelSource& source) {
  const auto& head = std::get<VqHeadConfig>(source.head());
  const std::int64_t own = options.own_tokens.value_or(head.own_tokens);
  if (own > 0 && own >= head.clusters) {
    throw UsageError(fmt::format("--own-tokens {}: it must be below the {} clusters of {}", own, head.clusters,
                                 source.path().string()));
  }
  return {.own_tokens = own,
          .seed = options.gather.seed,
          .source = fmt::format("{} ({})", source.path().string(), source.description())};
}

/// Sums of the model's hidden states, on every rank. Collective.
ClassSums gather(const CodesRefitArguments& options, const ModelSource& source, Backend& backend,
                 const ProcessGrid& grid, const ShardSet& shards) {
  const Config config = source.config();
  const BatchShape shape{options.batch > 0 ? options.batch : config.train.micro_batch, config.data.seq_len};
  const LoadedModel loaded = load_model(source, backend, grid.tensor(), shape);
  return gather_class_sums(backend, grid.world(), *loaded.transformer, *loaded.code_map(), shards, options.gather);
}

void refit(const CodesRefitArguments& options, Environment& environment) {
  refuse_existing(options.out, options.force);
  const double start = wall_seconds();
  const auto source = open_model(options.checkpoint, environment.is_root() ? Verify::yes : Verify::no);
  if (const std::string obstacle = carry_over_obstacle(source->head()); !obstacle.empty()) {
    throw UsageError(fmt::format("{}: {}", source->path().string(), obstacle));
  }
  const RefitOptions fit_options = refit_options(options, *source);
  const ShardSet shards(options.data);
  check_tokenizer(*source, shards);
  const auto backend = environment.make_backend(options.device, 0);
  const ProcessGrid grid = environment.make_grid(*backend, {.data = 0, .tensor = 1});

  const auto wait = grid.world().expect_long_wait("gathering hidden states");
  std::vector<std::int64_t> counts = count_tokens(shards, counted_tokens, counting_ranks(*backend, grid.world()));
  counts.resize(static_cast<std::size_t>(source->model().vocab_size), 0);  // rows that only pad the matrix
  const ClassSums sums = gather(options, *source, *backend, grid, shards);
  if (!environment.is_root()) return;
  // Here and not on a GPU: the same map wherever hidden states were computed, but for what their rounding decides.
  const auto cpu = make_cpu_backend(environment.threads(0));
  const Refit fit = refit_map(source->code_map().value(), head_arrays(*source), sums, counts, fit_options, *cpu);
  save_code_map(options.out, fit.map, {.counts = counts, .dims = 0, .vectors = {}});
  fmt::print("{}: {}; {}; {:.1f} % of the tokens, {:.1f} % of the text, in another cluster; {:.1f} s\n", options.out,
             sizes_text(fit.map), fit.map.provenance, 100 * fit.moved_tokens, 100 * fit.moved_mass,
             wall_seconds() - start);
}

}  // namespace

void add_codes_refit(CLI::App& codes) {
  CLI::App* command =
      codes.add_subcommand("refit", "Fit the map of a trained VQ head to its model's hidden states, and write it");
  const auto options = std::make_shared<CodesRefitArguments>();
  command->add_option("--checkpoint", options->checkpoint, "a checkpoint, a run folder or a Hugging Face folder")
      ->required()
      ->type_name("MODEL");
  command->add_option("--data", options->data, "glob of the training shards")->required()->type_name("GLOB");
  command->add_option("--out", options->out, "the file to write, for head.map")->required()->type_name("FILE");
  command->add_flag("--force", options->force, "replace a file that is there");
  command->add_option("--tokens", options->gather.tokens, "fit to about so many, drawn from all shards")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--dims", options->gather.dims,
                   "that hidden states are projected to: rounded up to a multiple of the groups, at most d_model")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--own-tokens", options->own_tokens,
                   "the most frequent tokens with own clusters, of the K (default: the run's head.own_tokens)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--batch", options->batch, "sequences at a time (default: as in training)")
      ->check(CLI::PositiveNumber);
  command->add_option("--seed", options->gather.seed, "of the samples, the projection and the fit")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  add_device_option(*command, options->device);
  command->footer(
      "A training goes on with the map by --init MODEL --set head.map=FILE: what the head has learned is carried over.\n"
      "A run that had own tokens sets head.own_tokens=0 then: they have their clusters in the file.\n"
      "The file is the same for every number of ranks. docs/codes.md says more.\n"
      "Examples:\n"
      "  mpirun -n 4 vqlm codes refit --checkpoint runs/a --data 'shards/train-*.h5' --out refit.h5\n"
      "  vqlm train --init runs/a --set head.map=refit.h5 --set data.train='shards/train-*.h5' --set run.dir=runs/b");
  command->callback([options] { run_job([&](Environment& environment) { refit(*options, environment); }); });
}

}  // namespace vqlm
