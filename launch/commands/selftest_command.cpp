// vqlm selftest: does training work on this cluster, launched as a job would be, and does what it saves come back?
#include <spdlog/fmt/fmt.h>

#include <memory>
#include <string>

#include "core/log.h"
#include "launch/command_line.h"
#include "launch/commands/check_list.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/tools/selftest/selftest.h"
#include "train/tools/selftest/selftest_files.h"

namespace vqlm {
namespace {

struct SelftestArguments {
  DeviceKind device = DeviceKind::automatic;
  int tensor = 0;
  std::string dir = ".";
  std::string json;
};

using Alone = CheckList::Alone;

void check_computing(CheckList& checks, Backend& backend, const ProcessGrid& grid) {
  for (Communicator* group : {&grid.world(), &grid.data(), &grid.tensor()}) {
    // A group as large as the world is the world.
    if (group != &grid.world() && (group->size() == 1 || group->size() == grid.world().size())) continue;
    checks.run("collectives " + group->name(), Alone::no, [&] { return check_collectives(backend, *group); });
  }
  checks.run("determinism", Alone::no, [&] { return check_determinism(backend, grid); });
  checks.run("gradient spike", Alone::no, [&] { return check_spike(backend, grid); });
  checks.run("replica check", Alone::no, [&] { return check_replica_check(backend, grid); });
}

void check_files(CheckList& checks, Backend& backend, const ProcessGrid& grid, const std::string& dir) {
  std::unique_ptr<SelftestFolder> folder;
  if (!checks.run("folder", Alone::yes, [&] {
        folder = std::make_unique<SelftestFolder>(backend, grid.world(), dir);
        return DoctorCheck{.text = folder->path().string()};
      }))
    return;
  const bool shared =
      checks.run("shared folder", Alone::no, [&] { return check_shared_folder(grid.world(), folder->path()); });
  if (shared) {
    checks.run("file locks", Alone::no, [&] { return check_file_locks(grid.world(), folder->path()); });
    const bool sound = checks.run("disk", Alone::yes, [&] { return check_disk(grid.world().rank(), folder->path()); });
    if (sound && checks.run("checkpoint", Alone::no, [&] { return check_resume(backend, grid, folder->path()); }))
      checks.run("damage", Alone::no, [&] { return check_damage(backend, grid, folder->path()); });
  }
  grid.world().barrier();  // the folder goes when nobody is at work in it
}

void examine(const SelftestArguments& options, Environment& environment) {
  log::set_level(log::level::err);  // the runs below would tell of themselves, and warn of damage that is ours
  CheckList checks(environment, "selftest");
  const int ranks = environment.mpi().size();
  checks.report()["ranks"] = ranks;
  std::unique_ptr<Backend> backend;
  const bool opened = checks.run("device", Alone::yes, [&] {
    backend = environment.make_backend(options.device, 0);
    return DoctorCheck{.text = fmt::format("{} rank{}, {}", ranks, ranks == 1 ? "" : "s", backend->description())};
  });
  if (opened && checks.run("against the CPU", Alone::yes, [&] { return check_against_cpu(*backend); })) {
    ParallelSection parallel;
    parallel.data = 0;
    // 2 x 2 is the smallest grid that has every kind of group.
    parallel.tensor = options.tensor > 0 ? options.tensor : ranks % 4 == 0 ? 2 : 1;
    // Failing here ends the job: other ranks may be waiting inside MPI or NCCL.
    const ProcessGrid grid = environment.make_grid(*backend, parallel);
    check_computing(checks, *backend, grid);
    check_files(checks, *backend, grid, options.dir);
  }
  checks.conclude(options.json);
}

}  // namespace

void add_selftest_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("selftest", "Train, save, damage and continue a tiny run here, launched as your job would be");
  auto options = std::make_shared<SelftestArguments>();
  add_device_option(*command, options->device);
  command
      ->add_option("--tensor", options->tensor,
                   "ranks of a tensor group; 0: 2 where the ranks are a multiple of 4, else 1")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--dir", options->dir, "folder where runs would be; what is made there is removed again")
      ->capture_default_str();
  command->add_option("--json", options->json, "write the findings here too")->type_name("FILE");
  command->footer(
      "Each check ends in ok or FAILED with what to do. Exit code 1 where one failed.\n"
      "Examples:\n"
      "  vqlm selftest\n"
      "  mpirun -n 8 vqlm selftest --dir /scratch/me --json selftest.json");
  command->callback([options] { run_job([&](Environment& environment) { examine(*options, environment); }); });
}

}  // namespace vqlm
