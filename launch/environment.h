// What a job finds around it: its ranks, its share of the machine, where its words go. Built once, by run_job, and passed on.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/cuda/cuda_backend.h"
#include "dist/launcher.h"
#include "dist/mpi_session.h"
#include "dist/process_grid.h"
#include "dist/watch/heartbeat.h"
#include "dist/watch/start_limit.h"
#include "train/config/config.h"
#include "train/records/progress.h"

namespace vqlm {

/// EX_UNAVAILABLE of sysexits.h: a watchdog ended the job, because a rank or its host was lost or hung. The run may go on elsewhere.
inline constexpr int lost_rank_exit_code = 69;

/// A message as it leaves the program: one line, whatever line ends and terminal codes a file or an option put into it.
std::string one_line(std::string message);

/// "4 ranks on 2 hosts: h1 (0 to 1), h2 (2 to 3)", from each rank's host; of many hosts the first eight.
std::string ranks_by_host(const std::vector<std::string>& hosts);

/// For a command that several processes must not run at once: throws UsageError saying so and what to do (`instead`).
void refuse_launcher_ranks(const char* command, const char* instead);

/// Log lines go to standard error; ranks above 0 log warnings and errors only, with their rank.
void configure_logging();

class Environment {
 public:
  /// Connects the ranks. Throws Error.
  Environment();
  /// Lets several ranks watch each other from now on (dist/watch/heartbeat.h). Collective. Throws Error.
  void watch_ranks();

  const MpiSession& mpi() const { return *mpi_; }
  /// True on the one rank that reports and writes shared files.
  bool is_root() const { return mpi_->rank() == 0; }
  /// Standard error is a terminal, or VQLM_TERMINAL=1 says that it ends at one (mpirun hides that).
  Terminal terminal() const;

  /// Threads of this rank: `asked`, or for 0 OMP_NUM_THREADS where set, else this rank's share of the machine's cores. At
  /// most 4 for each core or 64; says so where more are asked for.
  int threads(int asked) const;

  /// Each rank's host.
  std::vector<std::string> hosts() const;
  /// The ranks' hosts (ranks_by_host).
  std::string describe_hosts() const;

  /// The device index of the GPU that this rank takes of those it sees (dist/device_choice.h). Collective over the ranks of
  /// a node. Throws UsageError where ranks would share one.
  int choose_gpu() const;
  /// The GPU of the back end that make_backend made; 0 where that is the CPU.
  int gpu() const { return gpu_; }

  /// The back end for `device`: the GPU of choose_gpu(), or the CPU; automatic takes the CPU where no rank sees a GPU, and says
  /// so. It must be destroyed before the environment. Collective. Throws Error, UsageError with the counts where a node
  /// has more ranks than GPUs.
  std::unique_ptr<Backend> make_backend(DeviceKind device, int asked_threads,
                                        DependentLaunch launch = DependentLaunch::yes);
  /// The same as a run's configuration says.
  std::unique_ptr<Backend> make_backend(const RunSection& run);
  /// Ranks are watched with these limits from now on; before, and by other commands, for signs of life alone. Every rank calls
  /// it at about the same time.
  void watch_training(const ParallelSection& parallel) const;
  /// The ranks as data x tensor: over NCCL where `backend` is a GPU, else over MPI. Collective.
  ProcessGrid make_grid(Backend& backend, const ParallelSection& parallel) const;

 private:
  /// True where every rank sees a GPU. Collective. Throws Error where some do.
  bool gpus_for_all() const;
  void end_by_watchdog() const;

  std::string host_;
  std::optional<StartLimit> start_limit_;  // until the ranks are connected
  std::optional<MpiSession> mpi_;
  std::unique_ptr<Heartbeat> heartbeat_;  // none: one rank
  int gpu_ = 0;
};

/// Runs `work` in an Environment. Alone, exceptions leave as they came. With several ranks an exception on any one ends
/// the whole job: its message is printed once and every rank exits with its code, so that none waits for ever.
void run_job(const std::function<void(Environment&)>& work);

}  // namespace vqlm
