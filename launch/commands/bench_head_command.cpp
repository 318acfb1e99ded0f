// vqlm bench head: the output heads in training and in decoding, of one size or over a grid of sizes.
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/commands/bench_op_commands.h"
#include "launch/environment.h"
#include "train/tools/bench/head_bench.h"
#include "train/tools/bench/head_grid.h"
#include "train/tools/plan/plan_report.h"

namespace vqlm {

void add_clock(CLI::App& command, Clock& clock) {
  command
      .add_option_function<std::string>(
          "--clock", [&clock](const std::string& name) { clock = name == "cpu" ? cpu_seconds : wall_seconds; },
          "wall (default), or cpu: processor time, where other work keeps the machine busy (one rank and "
          "thread)")
      ->check(CLI::IsMember({"wall", "cpu"}));
}

void check_clock(Clock clock, int ranks, int threads) {
  if (clock == wall_seconds || (ranks == 1 && threads == 1)) return;
  throw UsageError(
      fmt::format("bench: --clock cpu with {} ranks of {} threads: their processor time adds up; use one rank and "
                  "--threads 1, or --clock wall",
                  ranks, threads));
}

namespace {

struct HeadOptions {
  HeadBenchOptions bench;
  bool grid = false;
  std::vector<std::int64_t> vocabularies{32000, 50257, 128000, 256000};
  std::vector<std::int64_t> widths{512, 768, 2048, 4096};
  std::string memory;
  int threads = 1;
  DeviceKind device = DeviceKind::automatic;
  std::string json;
};

void bench_head(HeadOptions options) {
  if (options.threads < 0 || options.threads > 4096) {
    throw UsageError(fmt::format("bench head: --threads {}: choose 1 to 4096, or 0 for all cores", options.threads));
  }
  if (!options.memory.empty()) options.bench.memory = parse_bytes(options.memory, "--memory");
  run_job([&](Environment& environment) {
    if (environment.mpi().size() != 1) {
      throw UsageError(
          fmt::format("bench head: measures one process, but mpirun started {}; start it without "
                      "mpirun",
                      environment.mpi().size()));
    }
    check_clock(options.bench.clock, 1, environment.threads(options.threads));
    const auto backend = environment.make_backend(options.device, options.threads);
    std::string text, json;
    if (options.grid) {
      const auto grid = run_head_grid(*backend, options.bench, options.vocabularies, options.widths);
      text = grid_text(grid);
      json = grid_json(grid);
    } else {
      const HeadBenchResult result = run_head_bench(*backend, options.bench);
      text = to_text(result);
      json = to_json(result);
    }
    std::fputs(text.c_str(), stdout);
    if (!options.json.empty()) write_file_atomically(options.json, json);
  });
}

void add_grid(CLI::App& command, HeadOptions& options) {
  CLI::Option* const grid = command.add_flag(
      "--grid", options.grid, "every --vocabs at every --widths, the VQ head at about 1 % of V d; one table");
  for (const char* const one : {"--vocab", "--width", "--rank", "--clusters", "--groups", "--codes"}) {
    grid->excludes(command.get_option(one));
  }
  command.add_option("--vocabs", options.vocabularies, "vocabularies of the grid")
      ->delimiter(',')
      ->capture_default_str()
      ->needs(grid);
  command.add_option("--widths", options.widths, "model widths of the grid")
      ->delimiter(',')
      ->capture_default_str()
      ->needs(grid);
}

}  // namespace

void add_head_bench(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand(
      "head", "Time the output heads on the same hidden states: training, and one token at a time");
  const auto options = std::make_shared<HeadOptions>();
  HeadBenchOptions& sizes = options->bench;
  const auto size = [&](const char* name, auto& target, const char* help) {
    command->add_option(name, target, help)->capture_default_str();
  };
  size("--vocab", sizes.vocab_size, "vocabulary V");
  size("--width", sizes.width, "model width d");
  size("--rows", sizes.rows, "tokens N");
  size("--rank", sizes.rank, "rank r of the low-rank head; 0: a quarter of the width");
  size("--clusters", sizes.clusters, "clusters K");
  size("--groups", sizes.groups, "groups G of a member vector; 0: the published VQ-Logits");
  size("--codes", sizes.codes, "codes Q of a group, at most 256");
  size("--repeats", sizes.repeats, "timed passes of each head, and rounds of decoding");
  size("--decode", sizes.decode_tokens, "tokens of a round of decoding; 0: none");
  size("--top-k", sizes.top_k, "k of the most probable tokens");
  size("--spread", sizes.spread, "decoding: standard deviation of a logit over the hidden states");
  size("--time-limit", sizes.time_limit, "seconds that a head may be expected to take, else it is skipped by name");
  command
      ->add_option("--memory", options->memory,
                   "that a head may take, else it is skipped by name (default: 80 % of what the host has free)")
      ->type_name("SIZE");
  size("--threads", options->threads, "threads on the CPU; 0: all cores");
  add_device_option(*command, options->device);
  command->add_option("--map", sizes.map, "which tokens share a cluster")
      ->check(CLI::IsMember({"random", "frequency"}))
      ->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--targets",
          [&sizes](const std::string& name) {
            sizes.targets = name == "uniform" ? TokenDistribution::uniform : TokenDistribution::zipf;
          },
          "how often each token is a target (default zipf)")
      ->check(CLI::IsMember({"zipf", "uniform"}));
  add_grid(*command, *options);
  add_clock(*command, sizes.clock);
  command->add_option("--json", options->json, "write the result here too")->type_name("FILE");
  command->footer(
      "One pass is forward and backward of all rows: dense with all logits at once (dense_plain), dense in "
      "chunks, dense of low rank, VQ with\nmembers by codes (vq) and by rows of the model's embedding (vq_embedding), and the "
      "published VQ-Logits\n(G = 0) with as many parameters as vq. A random map spreads the targets over "
      "all "
      "clusters, which\nis the harder case for the VQ head; with a frequency map most rows share a few "
      "clusters.\n"
      "Examples:\n"
      "  vqlm bench head\n"
      "  vqlm bench head --vocab 128000 --width 1024 --clusters 512 --targets uniform --json head.json\n"
      "  vqlm bench head --grid --rows 512 --repeats 3 --threads 1 --clock cpu");
  command->callback([options] { bench_head(*options); });
}

}  // namespace vqlm
