// vqlm tune: the fastest algorithm for each matrix product of a configuration's training step, kept in a file.
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/home_path.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/commands/plan_job.h"
#include "launch/environment.h"
#include "train/config/config_body_check.h"
#include "train/tools/bench/product_tuning.h"

namespace vqlm {
namespace {

struct TuneArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::int64_t vocabulary = 0;
  std::optional<DeviceKind> device;
  std::string out;
  TuningOptions tuning;
};

/// As a training's, but for the number of micro-batches: of more than two the third asks for what the second does.
Config tuned_config(const TuneArguments& options, int ranks, std::vector<std::string>& notes) {
  Config config = load_config(options.config, options.overrides);
  if (options.device) config.run.device = *options.device;
  const std::int64_t vocabulary = known_vocabulary("tune", options.vocabulary, config, notes);
  config.run.head_since = 0;  // of the run whose configuration this is
  resolve(config, vocabulary, ranks);
  config.train.global_batch =
      std::min<std::int64_t>(2, micro_batches_of(config)) * config.parallel.data * config.train.micro_batch;
  return config;
}

/// Before minutes of timing, and not behind them. Throws Error.
void check_folder_of(const std::string& out) {
  const std::filesystem::path folder = std::filesystem::absolute(out).parent_path();
  if (access(folder.c_str(), W_OK | X_OK) == 0) return;
  throw Error(fmt::format("{}: cannot write into {}: {}; choose another file by --out, or make the folder", out,
                          folder.string(), std::strerror(errno)));
}

void tune(const TuneArguments& options) {
  run_job([&](Environment& environment) {
    std::vector<std::string> notes;
    const Config config = tuned_config(options, environment.mpi().size(), notes);
    const std::string own = config.run.products_file.empty() ? "products.json" : config.run.products_file;
    const std::string out = options.out.empty() ? own : expand_home(options.out);
    if (environment.is_root()) check_folder_of(out);
    const auto backend = environment.make_backend(config.run);
    check_device(config, backend->activation_dtype());
    const ProcessGrid grid = environment.make_grid(*backend, config.parallel);
    if (environment.is_root()) {
      for (const std::string& note : notes) log::info("{}", note);
    }
    const TuningResult result = tune_products(*backend, grid, config, options.tuning);
    if (!environment.is_root()) return;
    std::fputs(to_text(result).c_str(), stdout);
    write_file_atomically(out, to_json(result.file()));
    fmt::print("{}: read by trainings with run.products_file = \"{}\"\n", out, out);
  });
}

}  // namespace

void add_tune_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "tune", "Time a GPU library's algorithms for a training step's matrix products, and keep the fastest in a file");
  auto options = std::make_shared<TuneArguments>();
  command->add_option("--config", options->config, "the training's configuration")->type_name("FILE");
  command->add_option("--set", options->overrides, "override one key: section.key=value (may be repeated)")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command->add_option("--vocab", options->vocabulary,
                      "vocabulary, where neither the configuration nor its shards say it");
  add_device_option(*command, options->device, "run.device");
  command->add_option("--out", options->out, "the file (default: run.products_file, else products.json)")
      ->type_name("FILE");
  command
      ->add_option("--algorithms", options->tuning.algorithms,
                   "so many are timed for each product, the library's first ones")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--repeats", options->tuning.repeats, "timed calls of each; their median counts")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->footer(
      "Runs two steps of the model on random tokens to see which products a training asks for, under mpirun on the\n"
      "training's grid, and times them on the first rank's GPU. A training with run.products_file = FILE only reads the\n"
      "file: it makes the same products by the same algorithms in every run. A file of another GPU or library is passed\n"
      "over with a warning, a product that it does not know takes the library's first algorithm.\n"
      "Examples:\n"
      "  vqlm tune --config configs/gpt2-small-dense.toml --vocab 50257 --out products.json\n"
      "  vqlm train --config configs/gpt2-small-dense.toml --set run.products_file=products.json\n"
      "  mpirun -n 8 vqlm tune --config configs/1b5-dense.toml --set parallel.tensor=2 --out h200x8.json");
  command->callback([options] { tune(*options); });
}

}  // namespace vqlm
