// vqlm bench collectives: what the ranks' network gives.
#include <cstdio>
#include <memory>
#include <string>

#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/commands/bench_op_commands.h"
#include "launch/environment.h"
#include "train/tools/bench/collective_bench.h"

namespace vqlm {
namespace {

struct Arguments {
  CollectiveBenchOptions sizes;
  DeviceKind device = DeviceKind::automatic;
  int tensor = 1;
  std::string json;
};

void bench_collectives(const Arguments& options, Environment& environment) {
  const auto backend = environment.make_backend(options.device, 1);
  ParallelSection parallel;
  parallel.tensor = options.tensor;
  const ProcessGrid grid = environment.make_grid(*backend, parallel);
  const CollectiveBenchResult result = run_collective_bench(*backend, grid, environment.hosts(), options.sizes);
  if (!environment.is_root()) return;
  std::fputs(to_text(result).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, to_json(result));
}

}  // namespace

void add_collectives_bench(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand(
      "collectives", "Time the collectives of a grid's groups by size, and what pairs of hosts exchange; under mpirun");
  const auto options = std::make_shared<Arguments>();
  const auto size = [&](const char* name, auto& target, const char* help) {
    command->add_option(name, target, help)->capture_default_str();
  };
  size("--tensor", options->tensor, "ranks of a tensor group");
  size("--min-bytes", options->sizes.min_bytes, "the first size");
  size("--max-bytes", options->sizes.max_bytes, "the last size, and that of the exchange of hosts");
  size("--factor", options->sizes.factor, "from one size to the next");
  size("--seconds", options->sizes.seconds, "of timed calls, for each collective and size");
  add_device_option(*command, options->device);
  command->add_option("--json", options->json, "write the result here too: vqlm plan --measured reads it")
      ->type_name("FILE");
  command->footer(
      "Sizes, algorithm and bus bandwidth are those of nccl-tests: bytes of the whole buffer; bus bandwidth is what each rank\n"
      "sends in a ring. Times are the slowest rank's.\n"
      "Examples:\n"
      "  launch/mpirun.sh -n 4 build/vqlm bench collectives --tensor 2\n"
      "  launch/mpirun.sh --hosts hosts.txt --ranks-per-node 8 build/vqlm bench collectives --json network.json\n"
      "  vqlm plan --config configs/demo-vq.toml --grid 4x2 --measured network.json");
  command->callback(
      [options] { run_job([&](Environment& environment) { bench_collectives(*options, environment); }); });
}

}  // namespace vqlm
