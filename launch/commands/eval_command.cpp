// vqlm eval: a model's exact loss on held-out shards.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/home_path.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/commands/codes_job.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/codes/map_counts.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/records/evaluation_report.h"

namespace vqlm {
namespace {

struct EvalArguments {
  std::string checkpoint;
  std::vector<std::string> data;
  std::string json;
  std::string bands_from;
  int tensor = 1;
  std::int64_t micro_batch = 0;
  std::int64_t seq_len = 0;
  std::int64_t max_tokens = 0;
  std::optional<DeviceKind> device;
  int threads = 0;
};

/// The model's configuration with the sizes and the device of this job.
Config job_config(const EvalArguments& options, const ModelSource& source, int ranks) {
  Config config = source.config();
  if (!source.run() && options.seq_len == 0) log::info("samples of {} tokens (--seq-len)", config.data.seq_len);
  config.parallel = {.data = 0, .tensor = options.tensor};
  if (options.micro_batch > 0) config.train.micro_batch = options.micro_batch;
  if (options.seq_len > 0) config.data.seq_len = options.seq_len;
  config.train.global_batch = config.train.micro_batch * ranks / options.tensor;
  config.run.threads = options.threads;
  // Neither is the trained run's: this machine may have another device, which computes in its own dtype.
  config.run.device = options.device.value_or(DeviceKind::automatic);
  config.train.precision = Precision::automatic;
  resolve(config, config.model.vocab_size, ranks);
  if (!options.device) config.run.device = automatic_device(config);
  return config;
}

/// Bands by the counts of --bands-from; none without it. Collective.
std::optional<FrequencyBands> make_bands(const EvalArguments& options, const ModelSource& source, Backend& backend,
                                         Communicator& world) {
  if (options.bands_from.empty()) return std::nullopt;
  const ShardSet shards(options.bands_from);
  check_tokenizer(source, shards);
  const auto wait = world.expect_long_wait("counting tokens");
  std::vector<std::int64_t> counts = count_tokens(shards, counted_tokens, counting_ranks(backend, world));
  counts.resize(static_cast<std::size_t>(source.model().vocab_size), 0);  // rows that only pad the matrix
  return make_frequency_bands(counts);
}

/// NAME=GLOB, as --data has it; a path of its own, or one without such a beginning, has no name.
HeldoutEntry named_set(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string_view name = std::string_view(text).substr(0, equals == std::string::npos ? 0 : equals);
  const bool is_name = !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
  if (!is_name || std::filesystem::exists(expand_home(text))) return {.name = "", .shards = text};
  return {.name = std::string(name), .shards = text.substr(equals + 1)};
}

/// What --data names; without it the sets that the model's run was evaluated on.
std::vector<HeldoutEntry> sets_of(const EvalArguments& options, const ModelSource& source) {
  std::vector<HeldoutEntry> sets;
  for (const std::string& text : options.data) sets.push_back(named_set(text));
  if (sets.size() > 1) {
    for (std::size_t i = 0; i < sets.size(); ++i) {
      if (sets[i].name.empty()) sets[i].name = sets[i].shards;
    }
  }
  for (std::size_t i = 0; i < sets.size(); ++i) {
    if (std::ranges::count(sets, sets[i].name, &HeldoutEntry::name) > 1)
      throw UsageError(fmt::format("--data: two sets are named {}: give one another name", sets[i].name));
  }
  if (!sets.empty()) return sets;
  const DataSection data = source.config().data;
  if (!data.heldout.empty()) return {{.name = "", .shards = data.heldout}};
  if (data.heldout_sets.empty())
    throw UsageError(
        fmt::format("{}: was evaluated on no shards while it trained; name some with --data", source.path().string()));
  return data.heldout_sets;
}

/// The means over all tokens of all sets, in a line.
std::string total_text(const std::vector<Evaluation>& results) {
  double nll = 0, tokens = 0;
  for (const Evaluation& result : results) {
    nll += result.nll * static_cast<double>(result.tokens);
    tokens += static_cast<double>(result.tokens);
  }
  return fmt::format("all sets: perplexity {:.4f}, nll {:.5f}, {} tokens\n", std::exp(nll / tokens), nll / tokens,
                     static_cast<std::int64_t>(tokens));
}

/// One set without a name: its object. Else {"sets": {name: object, ...}}.
std::string sets_json(const std::vector<HeldoutEntry>& sets, const std::vector<std::string>& objects) {
  if (sets.size() == 1 && sets[0].name.empty()) return objects[0];
  std::string all;  // of the objects' own text, which has its long lists in a line each
  for (std::size_t i = 0; i < sets.size(); ++i)
    all += fmt::format("{}{}: {}", i > 0 ? ",\n" : "", nlohmann::json(sets[i].name).dump(), objects[i]);
  return fmt::format("{{\"sets\": {{\n{}}}}}\n", all);
}

void evaluate(const EvalArguments& options, Environment& environment) {
  const auto source = open_model(options.checkpoint, environment.is_root() ? Verify::yes : Verify::no);
  const std::vector<HeldoutEntry> sets = sets_of(options, *source);
  std::vector<ShardSet> shards;
  for (const HeldoutEntry& set : sets) {
    shards.emplace_back(set.shards);
    check_tokenizer(*source, shards.back());
  }
  const Config config = job_config(options, *source, environment.mpi().size());
  const auto backend = environment.make_backend(config.run);
  check_device(config, backend->activation_dtype());
  const ProcessGrid grid = environment.make_grid(*backend, {.data = 0, .tensor = options.tensor});

  const LoadedModel loaded =
      load_model(*source, *backend, grid.tensor(), {config.train.micro_batch, config.data.seq_len});
  Transformer& model = *loaded.transformer;
  const std::optional<FrequencyBands> bands = make_bands(options, *source, *backend, grid.world());
  const CodeMap* const map = vq_of(source->head()) != nullptr ? loaded.code_map() : nullptr;  // bands are no codes
  const EvaluationBuffers buffers(*backend, model);
  std::vector<Evaluation> results;
  std::vector<std::string> objects;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    Evaluator evaluator(*backend, grid, model, shards[i], options.max_tokens, map, bands ? &*bands : nullptr, buffers);
    if (options.tensor == 1) evaluator.measure_acceptance();
    results.push_back(evaluator.run());
    if (!environment.is_root()) continue;
    const Evaluation& result = results.back();
    const EvaluationSubject subject{
        .checkpoint = source->path().string(),
        .data = sets[i].shards,
        .config = config,
        .head = model.head_cost(),
        .parameters = model.parameters().global_count(),
        .flops_per_token = model.flops_per_token(),
        .tokenizer_sha256 = shards[i].tokenizer_sha256(),
        .data_fingerprint = shards[i].fingerprint(),
        .complete = result.tokens + 1 >= static_cast<std::int64_t>(shards[i].total_tokens()),
        .map_tokens = map != nullptr ? map->counted_tokens : 0,
        .trained_tokens = source->run() ? source->config().trained_tokens() : 0};
    if (!sets[i].name.empty()) fmt::print("{}:\n", sets[i].name);
    std::fputs(evaluation_text(result, subject).c_str(), stdout);
    log::info("{} tokens/s", static_cast<std::int64_t>(static_cast<double>(result.tokens) / result.seconds));
    objects.push_back(evaluation_json(result, subject));
  }
  if (!environment.is_root()) return;
  if (sets.size() > 1) std::fputs(total_text(results).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, sets_json(sets, objects));
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("eval", "Evaluate a model on held-out shards, alone or under mpirun");
  auto options = std::make_shared<EvalArguments>();
  command
      ->add_option("--checkpoint", options->checkpoint,
                   "a checkpoint, a run folder (its newest one), or a Hugging Face folder")
      ->required();
  command
      ->add_option(
          "--data", options->data,
          "glob of the shards to evaluate on; NAME=GLOB where there are several; may be repeated (default: the "
          "held-out sets of the model's run)")
      ->allow_extra_args(false);
  command->add_option("--json", options->json, "write the result into this file, too");
  command
      ->add_option("--bands-from", options->bands_from,
                   "also the losses by frequency of the target, as it was in these shards (best the training shards)")
      ->type_name("GLOB");
  command->add_option("--tensor", options->tensor, "ranks that share one model (default 1: each rank holds it whole)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--micro-batch", options->micro_batch,
                   "sequences at a time (default: as in training; 8 where no run tells)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--seq-len", options->seq_len,
                   "tokens of a sample (default: as in training; 512 where no run tells)")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-tokens", options->max_tokens, "stop after about so many tokens (default: all)")
      ->check(CLI::PositiveNumber);
  add_device_option(*command, options->device, "auto, wherever the model was trained");
  command->add_option("--threads", options->threads, "threads of a rank (default: its share of the cores)")
      ->check(CLI::PositiveNumber);
  command->footer(
      "The shards' tokens are cut into samples of seq_len tokens that do not overlap; a token is predicted "
      "from the tokens\n"
      "before it in its sample, and every token but the stream's first is predicted exactly once. The result "
      "does not\n"
      "depend on the number of ranks. VQ heads' loss is shown in its two parts, cluster and member in it; "
      "--bands-from cuts\n"
      "it by the rank of the target among the training tokens: 1-16, 17-128, 129-1,024, 1,025-8,192, the "
      "rest.\n"
      "Heads for later tokens (head.future) have lines of their own, and with --tensor 1 how often what they would "
      "draft is\n"
      "what the output head says when it gets there.\n"
      "Examples:\n"
      "  vqlm eval --checkpoint runs/a --data 'shards/heldout-*.h5'\n"
      "  vqlm eval --checkpoint SmolLM2-135M --data 'shards/heldout-*.h5' --seq-len 1024 --max-tokens "
      "100000\n"
      "  mpirun -n 4 vqlm eval --checkpoint runs/a/checkpoints/step-00001000 --data 'shards/heldout-*.h5' "
      "--json eval.json\n"
      "  vqlm eval --checkpoint runs/a --data 'shards/heldout-*.h5' --bands-from 'shards/train-*.h5'");
  command->callback([options] { run_job([&](Environment& environment) { evaluate(*options, environment); }); });
}

}  // namespace vqlm
