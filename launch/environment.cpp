#include "launch/environment.h"

#include <sched.h>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>
#include <spdlog/sinks/dist_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "core/log.h"
#include "core/task_progress.h"
#include "dist/device_choice.h"
#include "dist/nccl_settings.h"
#include "dist/watch/network_interfaces.h"
#include "launch/host.h"
#include "launch/signals.h"

namespace vqlm {
namespace {

/// Cores that this process may run on.
int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// More gain nothing on this machine: 8,192 threads on 2 cores did not end a tiny run in 100 s, and 100,000 crash.
int most_threads() {
  return std::max(64, 4 * static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

/// A whole number of seconds from the environment; 0 turns off what it limits.
double seconds_from_environment(const char* name, double otherwise) {
  const int asked = number_from_environment(name);
  return asked >= 0 ? asked : otherwise;
}

/// Before MPI starts: where ranks and their reading threads share cores, a rank that waits must let others run.
void yield_when_cores_are_shared() {
  const int local_ranks = number_from_environment("OMPI_COMM_WORLD_LOCAL_SIZE");
  constexpr int keep_the_users_choice = 0;
  if (local_ranks > 1 && local_ranks >= allowed_cores()) {
    ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", keep_the_users_choice);
  }
}

/// `announced` processes that MPI does not connect would each train alone, in one run folder.
void require_launcher_of_this_mpi(int announced) {
  if (announced <= 1) return;
  throw Error(
      fmt::format("the launcher started {} processes, but MPI connects none of them; under Slurm use `srun "
                  "--mpi=pmix`, else the mpirun of the Open MPI that vqlm was built with (launch/mpirun.sh)",
                  announced));
}

[[noreturn]] void end_job(const MpiSession& mpi, const std::string& message, int exit_code) {
  // Ranks usually fail alike (the same configuration, the same file). The others give rank 0 a moment to say it and to
  // end them by SIGTERM, so that the message appears once; staggered, should rank 0 be well. The peers' watchdogs, which
  // may see NCCL's errors meanwhile, wait for longer than this.
  unblock_stop_signals();
  if (mpi.rank() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1000 + 25 * std::min(mpi.rank(), 40)));
  mpi.abort(fmt::format("vqlm: error: {}", one_line(message)), exit_code);
}

}  // namespace

std::string ranks_by_host(const std::vector<std::string>& hosts) {
  constexpr std::size_t told = 8;
  using Entry = std::pair<std::string, std::vector<std::size_t>>;
  std::vector<Entry> by_host;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
    auto found = std::ranges::find(by_host, hosts[rank], &Entry::first);
    if (found == by_host.end()) found = by_host.insert(by_host.end(), Entry{hosts[rank], {}});
    found->second.push_back(rank);
  }
  std::string text = fmt::format("{} rank{} on {} host{}:", hosts.size(), hosts.size() == 1 ? "" : "s", by_host.size(),
                                 by_host.size() == 1 ? "" : "s");
  for (std::size_t i = 0; i < std::min(told, by_host.size()); ++i) {
    const auto& [host, ranks] = by_host[i];
    const bool in_a_row = ranks.size() > 1 && ranks.back() - ranks.front() + 1 == ranks.size();
    const std::string numbers =
        in_a_row ? fmt::format("{} to {}", ranks.front(), ranks.back()) : fmt::format("{}", fmt::join(ranks, ", "));
    text += fmt::format("{} {} ({})", i == 0 ? "" : ",", host, numbers);
  }
  if (by_host.size() > told) text += fmt::format(" and {} more", by_host.size() - told);
  return text;
}

std::string one_line(std::string message) {
  std::replace_if(message.begin(), message.end(), [](unsigned char c) { return c < ' ' || c == 127; }, ' ');
  return message;
}

void refuse_launcher_ranks(const char* command, const char* instead) {
  if (const int ranks = launcher_ranks(); ranks > 1) {
    throw UsageError(fmt::format("{}: is one process, but the launcher started {}; {}", command, ranks, instead));
  }
}

void configure_logging() {
  const int rank = launcher_rank();
  auto terminal = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  // On a terminal a log line first clears the progress line that may stand there.
  const std::string clear = stderr_is_terminal() ? "\r\x1b[K" : "";
  const std::string who = rank > 0 ? fmt::format(" rank {}", rank) : "";
  terminal->set_pattern(fmt::format("{}[%H:%M:%S{}] %^%l%$: %v", clear, who));
  terminal->set_level(rank > 0 ? spdlog::level::warn : spdlog::level::info);
  // Others may join (run_log.h): what a terminal shows by a line that redraws itself is a debug line for them.
  auto all = std::make_shared<spdlog::sinks::dist_sink_mt>(std::vector<spdlog::sink_ptr>{std::move(terminal)});
  auto logger = std::make_shared<spdlog::logger>("vqlm", std::move(all));
  logger->set_level(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

Environment::Environment()
    : host_(describe_host().name),
      start_limit_(std::in_place,
                   launcher_may_connect_ranks() ? seconds_from_environment("VQLM_START_SECONDS", 120) : 0, host_,
                   launcher_rank()) {
  mpi_.emplace();
  if (mpi_->size() == 1) start_limit_.reset();
}

void Environment::watch_ranks() {
  Heartbeat::Options options{.rank = mpi().rank(),
                             .host = host_,
                             .limits = {.heartbeat_seconds = seconds_from_environment("VQLM_HEARTBEAT_SECONDS", 45),
                                        .timeout_seconds = 0},  // of training alone: other work may be one rank's
                             .interface = chosen_interface(),
                             .exit_code = lost_rank_exit_code,
                             .on_failure = {}};
  options.on_failure = [this](const std::string& /*said already*/) { end_by_watchdog(); };
  heartbeat_ = std::make_unique<Heartbeat>([this](const std::string& text) { return mpi_->gather_texts(text); },
                                           mpi_->activity(), std::move(options));
  start_limit_.reset();
}

void Environment::watch_training(const ParallelSection& parallel) const {
  if (!heartbeat_) return;
  heartbeat_->set_limits(
      {static_cast<double>(parallel.heartbeat_seconds), static_cast<double>(parallel.timeout_seconds)});
}

void Environment::end_by_watchdog() const {
  mpi_->abort("vqlm: error: the watchdog ended the job", lost_rank_exit_code);
}

std::vector<std::string> Environment::hosts() const {
  return heartbeat_ ? heartbeat_->hosts() : std::vector{host_};
}

std::string Environment::describe_hosts() const {
  return ranks_by_host(hosts());
}

Terminal Environment::terminal() const {
  return stderr_is_terminal() ? Terminal::yes : Terminal::no;
}

int Environment::threads(int asked) const {
  const bool is_key = asked > 0;
  if (const int threads = is_key ? asked : number_from_environment("OMP_NUM_THREADS"); threads > 0) {
    if (threads <= most_threads()) return threads;
    if (is_root()) {
      log::warn("{} = {}: {} threads a rank are taken, more gain nothing on {} cores",
                is_key ? "run.threads" : "OMP_NUM_THREADS", threads, most_threads(), allowed_cores());
    }
    return most_threads();
  }
  const int allowed = allowed_cores();
  const auto online = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  const int local_ranks = mpi().local_size();
  // Bound ranks see their own cores only, and together no more than the machine has; unbound ones all see the same.
  const bool bound = local_ranks > 1 && allowed < online && allowed * local_ranks <= online;
  return bound ? allowed : std::max(1, allowed / local_ranks);
}

std::unique_ptr<Backend> Environment::make_backend(const RunSection& run) {
  return make_backend(run.device, run.threads, run.dependent_launch ? DependentLaunch::yes : DependentLaunch::no);
}

std::unique_ptr<Backend> Environment::make_backend(DeviceKind device, int asked_threads, DependentLaunch launch) {
  if (device == DeviceKind::cuda || (device == DeviceKind::automatic && gpus_for_all())) {
    // Without a single GPU the back end itself says why.
    gpu_ = choose_gpu();
    return make_cuda_backend(gpu_, launch);
  }
  return make_cpu_backend(threads(asked_threads));
}

int Environment::choose_gpu() const {
  std::vector<std::string> visible;
  for (int i = 0; i < cuda_device_count(); ++i) {
    const CudaDevice device = cuda_device(i);
    visible.push_back(device.pci + (device.mig ? mig_mark : ""));
  }
  return choose_device(mpi(), visible);
}

bool Environment::gpus_for_all() const {
  if (!cuda_built()) return false;
  const int with_gpu = mpi().count_ranks(cuda_device_count() > 0);
  if (with_gpu == 0) {
    log::info("{}; computing on the CPU", why_no_cuda_device());
    return false;
  }
  if (with_gpu < mpi().size()) {
    throw Error(fmt::format(
        "run.device = \"auto\": {} of {} ranks see a GPU, but all must compute alike; let every rank see the "
        "GPUs of its node (CUDA_VISIBLE_DEVICES, srun --gpus-per-node), or set run.device = \"cpu\"",
        with_gpu, mpi().size()));
  }
  return true;
}

ProcessGrid Environment::make_grid(Backend& backend, const ParallelSection& parallel) const {
  NcclOptions options;
  options.timeout_seconds = static_cast<double>(parallel.timeout_seconds);
  options.activity = mpi().activity();
  options.max_ctas = parallel.nccl_max_ctas;
  options.on_failure = [this](const std::string& /*said already*/) { end_by_watchdog(); };
  if (heartbeat_) options.who_is_behind = [this] { return heartbeat_->who_is_behind(); };
  return ProcessGrid(mpi(), backend, parallel.data, parallel.tensor, options);
}

void run_job(const std::function<void(Environment&)>& work) {
  yield_when_cores_are_shared();
  set_nccl_environment();
  const int announced = launcher_ranks();  // asked before MPI runs, which may set the variables itself
  block_stop_signals();                    // MPI's threads must not be the ones that a signal ends
  Environment environment;
  unblock_stop_signals();
  if (environment.mpi().size() == 1) {
    require_launcher_of_this_mpi(announced);
    return work(environment);
  }
  try {
    environment.watch_ranks();
    work(environment);
  } catch (const Error& error) {
    end_job(environment.mpi(), error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    end_job(environment.mpi(), "out of memory; use more ranks, or a smaller train.micro_batch", 1);
  } catch (const std::exception& error) {
    end_job(environment.mpi(), error.what(), 1);
  }
}

}  // namespace vqlm
