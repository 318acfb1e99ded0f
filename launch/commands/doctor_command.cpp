// vqlm doctor: what this program finds on this machine, and whether it works.
#include <spdlog/fmt/fmt.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/error.h"
#include "core/home_path.h"
#include "dist/nccl_communicator.h"
#include "dist/watch/network_interfaces.h"
#include "launch/command_line.h"
#include "launch/commands/check_list.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "launch/host.h"
#include "launch/version.h"
#include "train/tools/selftest/doctor.h"

namespace vqlm {
namespace {

using nlohmann::json;

struct DoctorArguments {
  DeviceKind device = DeviceKind::automatic;
  int tensor = 1;
  std::string data;
  std::string products;
  std::string json;
};

std::string gibibytes(std::size_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30));
}

/// One run of the command: prints each line as soon as it is known, so that a hang or a crash shows after what.
class Doctor {
 public:
  Doctor(const DoctorArguments& options, Environment& environment)
      : options_(options), environment_(environment), mpi_(environment.mpi()), checks_(environment, "doctor") {}

  void describe_program();
  void describe_devices();
  void describe_ranks();
  void describe_network();
  void check_backend();
  void check_data();
  void conclude() { checks_.conclude(options_.json); }

 private:
  using Alone = CheckList::Alone;
  void say(const std::string& subject, const std::string& text) const { checks_.say(subject, text); }
  void check_grid(Backend& backend);
  /// ", gpu 1 (0000:43:00.0)", or "" without one of its own. Collective.
  std::string own_gpu() const;

  const DoctorArguments& options_;
  Environment& environment_;
  const MpiSession& mpi_;
  CheckList checks_;
  json& report_ = checks_.report();
};

void Doctor::describe_program() {
  const CudaVersions cuda = cuda_versions();
  report_["version"] = version_text();
  report_["cuda"] = {
      {"built", cuda_built()}, {"runtime", cuda.runtime}, {"driver", cuda.driver}, {"cublaslt", cuda.cublaslt}};
  report_["nccl"] = nccl_version();
  report_["mpi"] = {{"library", mpi_.mpi_version()}, {"thread_level", mpi_.thread_level()}};
  say("vqlm", version_text());
  say("cuda", cuda_built()
                  ? fmt::format("{}; {}; cuBLASLt {}", cuda.runtime,
                                cuda.driver == "none" ? "no driver" : "driver for " + cuda.driver, cuda.cublaslt)
                  : "not built in");
  say("nccl", nccl_built() ? nccl_version() : "not built in");
  say("mpi", !mpi_built()      ? "not built in: one rank"
             : !mpi_.started() ? fmt::format("{}, not started: one rank", mpi_.mpi_version())
                               : fmt::format("{}, thread level {}", mpi_.mpi_version(), mpi_.thread_level()));
  const Host host = describe_host();
  report_["host"] = {{"name", host.name},
                     {"processor", host.processor},
                     {"cores", host.cores},
                     {"memory_bytes", host.memory},
                     {"available_bytes", host.available_memory}};
  say("host", fmt::format("{}: {}, {} cores, memory {}, {} available", host.name, host.processor, host.cores,
                          gibibytes(host.memory), gibibytes(host.available_memory)));
}

void Doctor::describe_devices() {
  report_["devices"] = json::array();
  const int count = cuda_device_count();
  if (count == 0) say("gpu", fmt::format("none: {}", why_no_cuda_device()));
  for (int i = 0; i < count; ++i) {
    const CudaDevice device = cuda_device(i);
    std::string unreachable;
    for (std::size_t peer = 0; peer < device.peers.size(); ++peer) {
      if (!device.peers[peer]) unreachable += fmt::format(" {}", peer);
    }
    const std::string peers = unreachable.empty() ? "all" : "all but" + unreachable;
    report_["devices"].push_back({{"name", device.name},
                                  {"pci", device.pci},
                                  {"mig", device.mig},
                                  {"memory_pools", device.memory_pools},
                                  {"compute_capability", device.compute_capability},
                                  {"multiprocessors", device.multiprocessors},
                                  {"memory_bytes", device.total_bytes},
                                  {"peers", device.peers}});
    say(fmt::format("gpu {}", i),
        fmt::format("{}, {}, compute capability {}.{}, {} multiprocessors, {}{}{}{}", device.name, device.pci,
                    device.compute_capability / 10, device.compute_capability % 10, device.multiprocessors,
                    gibibytes(device.total_bytes), device.mig ? ", a slice of its card" : "",
                    device.memory_pools ? "" : ", without stream-ordered memory: plain blocks",
                    count > 1 ? ", reads peers: " + peers : ""));
  }
}

std::string Doctor::own_gpu() const {
  try {
    const int gpu = environment_.choose_gpu();
    return gpu < cuda_device_count() ? fmt::format(", gpu {} ({})", gpu, cuda_device(gpu).pci) : "";
  } catch (const UsageError&) {  // on all ranks of the node; the device's check says it
    return "";
  }
}

void Doctor::describe_ranks() {
  const Host host = describe_host();
  const std::string cores =
      fmt::format("{} core{} ({})", host.allowed_cores, host.allowed_cores == 1 ? "" : "s", host.allowed);
  const std::string gpu = options_.device != DeviceKind::cpu ? own_gpu() : "";
  const std::vector<std::string> ranks = mpi_.gather_texts(
      fmt::format("{}, number {} of {} there, {}{}", host.name, mpi_.local_rank(), mpi_.local_size(), cores, gpu));
  report_["ranks"] = ranks;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) say(fmt::format("rank {}", rank), ranks[rank]);
}

/// Each host's interfaces, and those that the job may take; an address that two hosts have leads nowhere.
void Doctor::describe_network() {
  const std::string choice = chosen_interface();
  std::string own;
  for (const NetworkInterface& one : network_interfaces()) own += own.empty() ? one.text() : ", " + one.text();
  const std::vector<std::string> all = mpi_.gather_texts(own);
  const std::vector<std::string> hosts = environment_.hosts();
  std::map<std::string, std::string> by_host;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) by_host.emplace(hosts[rank], all[rank]);
  std::map<std::string, std::string> host_of;  // by interface and address
  for (const auto& [host, interfaces] : by_host) {
    say("network", fmt::format("{}: {}", host, interfaces.empty() ? "no interface but the loopback" : interfaces));
    std::istringstream words(interfaces);
    for (std::string word; std::getline(words, word, ',');) {
      const std::string address = word.substr(word.find_last_of(' ') + 1);
      const auto [other, is_first] = host_of.emplace(address, host);
      if (is_first || !choice.empty()) continue;
      say("network",
          fmt::format("{} is an address of {} and of {}: MPI may hang; choose an interface that connects the hosts by "
                      "launch/mpirun.sh --interface",
                      address, other->second, host));
    }
  }
  say("network",
      choice.empty() ? "all interfaces may be used (launch/mpirun.sh --interface chooses)" : "chosen: " + choice);
  report_["network"] = {{"hosts", by_host}, {"chosen", choice}};
}

void Doctor::check_backend() {
  std::unique_ptr<Backend> backend;
  const bool opened = checks_.run("device", Alone::yes, [&] {
    backend = environment_.make_backend(options_.device, 0);
    std::string memory;
    if (!backend->host_accessible()) {
      const CudaMemory of_device = cuda_memory(environment_.gpu());
      memory = fmt::format(", {} of {} free", gibibytes(of_device.free), gibibytes(of_device.total));
    }
    return DoctorCheck{.text = backend->description() + memory};
  });
  if (!opened) return;
  if (!options_.products.empty())
    checks_.run("products file", Alone::yes, [&] { return check_products(*backend, expand_home(options_.products)); });
  if (checks_.run("matmul result", Alone::yes, [&] { return check_matmul_result(*backend); })) check_grid(*backend);
}

void Doctor::check_grid(Backend& backend) {
  ParallelSection parallel;
  parallel.data = 0;
  parallel.tensor = options_.tensor;
  // Failing here ends the job: other ranks may be waiting inside MPI or NCCL.
  const ProcessGrid grid = environment_.make_grid(backend, parallel);
  checks_.run("matmul speed", Alone::no, [&] { return check_matmul_speed(backend, grid.world()); });
  for (Communicator* group : {&grid.world(), &grid.data(), &grid.tensor()}) {
    // A group as large as the world is the world.
    if (group != &grid.world() && (group->size() == 1 || group->size() == mpi_.size())) continue;
    checks_.run("all-reduce " + group->name(), Alone::no, [&] { return check_all_reduce(backend, *group); });
  }
}

void Doctor::check_data() {
  if (options_.data.empty()) {
    checks_.skip("shard read", "name shards with --data 'shards/*.h5'");
    return;
  }
  checks_.run("shard read", Alone::yes, [&] { return check_shards(options_.data, mpi_.rank(), mpi_.size()); });
}

void examine(const DoctorArguments& options, Environment& environment) {
  Doctor doctor(options, environment);
  doctor.describe_program();
  doctor.describe_devices();
  doctor.describe_ranks();
  doctor.describe_network();
  doctor.check_backend();
  doctor.check_data();
  doctor.conclude();
}

}  // namespace

void add_doctor_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("doctor", "Say what this machine offers and check that it works, alone or under mpirun");
  auto options = std::make_shared<DoctorArguments>();
  add_device_option(*command, options->device);
  command->add_option("--tensor", options->tensor, "ranks of a tensor group, for the all-reduces")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--data", options->data, "shards to read for a second")->type_name("GLOB");
  command->add_option("--products", options->products, "a file of vqlm tune: is it for this card?")->type_name("FILE");
  command->add_option("--json", options->json, "write the findings here too")->type_name("FILE");
  command->footer(
      "Each check runs about a second and ends in ok or FAILED with what to do. Exit code 1 where one "
      "failed.\n"
      "Examples:\n"
      "  vqlm doctor\n"
      "  mpirun -n 8 vqlm doctor --tensor 2 --data 'shards/train-*.h5' --json doctor.json");
  command->callback([options] { run_job([&](Environment& environment) { examine(*options, environment); }); });
}

}  // namespace vqlm
