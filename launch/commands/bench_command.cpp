// vqlm bench: how fast a training step, output heads, single ops and collectives are on this machine.
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/commands/bench_op_commands.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/tools/bench/step_bench.h"

namespace vqlm {
namespace {

void write_json(const std::string& path, const std::string& json) {
  if (!path.empty()) write_file_atomically(path, json);
}

struct StepOptions {
  std::string config;
  std::vector<std::string> overrides;  // of --set
  std::vector<std::string> sizes;      // of the short options, as overrides
  std::int64_t vocabulary = 16000;
  std::int64_t micro_batches = 1;
  StepBenchOptions bench;
  std::string json;
};

/// Defaults of the benchmark, then the file, the short options, --set; [data] needs no shards here.
Config step_config(const StepOptions& options, int ranks) {
  std::vector<std::string> overrides;
  if (options.config.empty()) {
    overrides = {"model.d_model=512", "model.n_layers=8",    "model.n_heads=8",
                 "data.seq_len=512",  "train.micro_batch=8", "run.threads=1"};
  }
  overrides.insert(overrides.end(), options.sizes.begin(), options.sizes.end());
  overrides.insert(overrides.end(), options.overrides.begin(), options.overrides.end());
  Config config = load_config(options.config, overrides);
  if (options.vocabulary < 1 || options.micro_batches < 1) {
    throw UsageError(fmt::format("bench step: --vocab {}, --micro-batches {}: choose 1 or more of each",
                                 options.vocabulary, options.micro_batches));
  }
  const int data = resolve_data_size(ranks, config.parallel.data, config.parallel.tensor);
  config.train.global_batch = options.micro_batches * config.train.micro_batch * data;
  config.optim.schedule = ScheduleKind::constant;
  config.optim.warmup_steps = 0;
  config.run.head_since = 0;  // of the run whose configuration this is
  resolve(config, config.model.vocab_size > 0 ? config.model.vocab_size : options.vocabulary, ranks);
  return config;
}

void bench_step(const StepOptions& options) {
  run_job([&](Environment& environment) {
    const Config config = step_config(options, environment.mpi().size());
    check_clock(options.bench.clock, environment.mpi().size(), environment.threads(config.run.threads));
    const auto backend = environment.make_backend(config.run);
    const ProcessGrid grid = environment.make_grid(*backend, config.parallel);
    const StepBenchResult result = run_step_bench(*backend, grid, config, options.bench);
    if (!environment.is_root()) return;
    std::fputs(to_text(result).c_str(), stdout);
    write_json(options.json, to_json(result));
  });
}

void add_step(CLI::App& bench) {
  CLI::App* command =
      bench.add_subcommand("step", "Time training steps on random tokens, against the machine's matrix products");
  const auto options = std::make_shared<StepOptions>();
  const auto size = [&](const char* name, const std::string& key, const char* help) {
    command
        ->add_option_function<std::string>(
            name, [options, key](const std::string& value) { options->sizes.push_back(key + "=" + value); }, help)
        ->type_name("VALUE");
  };
  size("--head", "head.kind", "dense, low_rank, adaptive or vq (default vq)");
  size("--d-model", "model.d_model", "model width (default 512)");
  size("--layers", "model.n_layers", "decoder blocks (default 8)");
  size("--heads", "model.n_heads", "query heads (default 8)");
  size("--seq-len", "data.seq_len", "tokens of a sequence (default 512)");
  size("--batch", "train.micro_batch", "sequences of a forward pass (default 8)");
  size("--rank", "head.rank", "low_rank: rank r (default 64)");
  size("--cutoffs", "head.cutoffs", "adaptive: ranks that bands begin at (default [], V / 8 and V / 2)");
  size("--tail-ratio", "head.tail_ratio", "adaptive: how many times narrower each tail band is (default 4)");
  size("--clusters", "head.clusters", "vq: clusters K (default 128)");
  size("--members", "head.members", "vq: embedding (default), codes or none");
  size("--groups", "head.groups", "members codes: groups G (default 32)");
  size("--codes", "head.codes", "members codes: codes Q of a group (default 128)");
  size("--map", "head.map", "vq: random, or by frequency for every other word (default)");
  size("--tensor", "parallel.tensor", "ranks that share one copy of the model (default 1)");
  size("--device", "run.device", "cpu, cuda, or auto: a GPU where there is one (default)");
  size("--kv-heads", "model.n_kv_heads", "key/value heads (default: as many as query heads)");
  size("--d-ff", "model.d_ff", "MLP width (default 8/3 of the model's)");
  size("--threads", "run.threads", "threads of a rank on the CPU; 0: its share of the cores (default 1)");
  command->add_option("--vocab", options->vocabulary, "vocabulary, where --config does not say it")
      ->capture_default_str();
  command->add_option("--micro-batches", options->micro_batches, "forward and backward passes of a step")
      ->capture_default_str();
  command->add_option("--steps", options->bench.steps, "timed steps")->capture_default_str();
  command->add_option("--warmup", options->bench.warmup, "steps before them")->capture_default_str();
  command->add_option("--profile", options->bench.profiled, "further steps that are timed op by op; 0: no profile")
      ->capture_default_str();
  add_clock(*command, options->bench.clock);
  command->add_option("--config", options->config, "the model of this configuration (its shards are not read)")
      ->type_name("FILE");
  command->add_option("--set", options->overrides, "section.key=value; may be repeated")->type_name("KEY=VALUE");
  command->add_option("--json", options->json, "write the result here too")->type_name("FILE");
  command->footer(
      "Prints tokens/s, milliseconds a step, model FLOP/s utilisation (tokens/s x FLOPs a token / the best "
      "rate of matrix\nproducts, measured before and after in the same process), each op's share of a step, "
      "and the peak memory by use.\nOn a GPU all times are the device's; --set run.cuda_graphs=false, "
      "run.dependent_launch=false and\nparallel.overlap=false for comparison.\n"
      "Examples:\n"
      "  vqlm bench step --head dense --batch 4\n"
      "  vqlm bench step --config configs/demo-vq.toml --set parallel.tensor=1 --json step.json\n"
      "  mpirun -n 2 vqlm bench step --tensor 2 --seq-len 256");
  command->callback([options] { bench_step(*options); });
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure the speed of a training step, the output heads, single ops or collectives");
  command->require_subcommand(1);
  add_step(*command);
  add_head_bench(*command);
  add_attention_bench(*command);
  add_ops_bench(*command);
  add_products_bench(*command);
  add_collectives_bench(*command);
  command->footer(
      "Examples:\n"
      "  vqlm bench step --config configs/demo-vq.toml --set parallel.tensor=1\n"
      "  vqlm bench head --vocab 32000 --width 512\n"
      "  vqlm bench products --threads 0");
}

}  // namespace vqlm
