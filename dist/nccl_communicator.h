// NcclCommunicator: collectives over NCCL on device memory, asynchronous to the host and to the compute stream. CMake
// compiles nccl_absent.cpp where CUDA or NCCL is missing.
//
// Streams. Each group has a stream of its own at the device's highest priority: the tensor group's collectives are on
// the critical path and must not queue behind the data group's large bucket reductions. A call records an event on the
// caller's stream, the group's stream waits for it, runs the collective and records the event that is returned.
//
// Several groups in flight on one GPU. NCCL kernels wait for their peers, so two groups whose kernels start in different
// orders on two GPUs can wait for each other for ever. Here one host thread per rank issues all collectives, in the same
// order on every rank (the contract of core/communicator.h), and NCCL_LAUNCH_ORDER_IMPLICIT=1 (NCCL 2.26) makes NCCL
// start the kernels of all communicators in that order, which "ensures the operations will not deadlock" (NCCL's user
// guide, environment variables). With a CUDA runtime and driver from 12.3 on only the starts are ordered and kernels
// overlap; as every collective here waits for the compute stream anyway, starts are in host order already and the
// setting costs nothing but the launch's bookkeeping. Older ones run the groups' collectives one after another. Older
// NCCLs are refused. Concurrent host threads must not use communicators: NCCL ends them (NCCL_LAUNCH_RACE_FATAL).
//
// The same bits in every run. NCCL's rings and trees add in an order that follows from topology, count, dtype and the
// algorithm it picks for these, and every rank receives the same sum; NVLink SHARP adds in the switch, in an order that
// its maintainers call not deterministic between calls (NVIDIA/nccl issue 1497). NCCL_NVLS_ENABLE=0 is therefore set.
// Reduce::max may lose a NaN here, unlike over MPI.
//
// Captured collectives and memory. By default NCCL registers the buffers of captured collectives by address range, which is
// known to hang or fail where a range is several physical allocations (pytorch/pytorch issue 158029), as blocks of a
// growing stream-ordered pool are. NCCL_GRAPH_REGISTER=0 is therefore set. set_nccl_environment() sets the variables; a
// user who sets one has the last word.
//
// Blocks beside backward. A collective's kernel keeps a multiprocessor for each of its thread blocks while it waits for its
// peers. NcclOptions::max_ctas (ncclConfig_t's maxCTAs) leaves more of them to the kernels beside it, at a lower rate of
// the collective; the sums may be cut, and so rounded, in another way than without. NCCL_MAX_CTAS, where a user has set it,
// has the last word.
//
// CUDA graphs. NCCL's user guide ("Using NCCL with CUDA Graphs") warns that the mechanism by which captured and other calls
// may be in flight together has been seen to make CUDA deadlock where one thread launches the graphs of several
// communicators, as this program does. run.cuda_graphs=false avoids it: then nothing is captured. Where the caller's stream is being captured, the events fork the group's stream into the capture and the
// returned event joins it again: the capturing stream must wait for it before the capture ends. Such a call is listed as
// "captured" by the watchdog, which cannot see its replays: one that hangs is reported as the first collective after it, with
// a remark that graphs were in use. NCCL's destroy and abort wait until no graph refers to the communicator. A group therefore
// must outlive the graphs that captured its calls, which is asserted; and where a failure finds such graphs alive, the
// communicator is left as it is, for the end of the process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/communicator.h"
#include "dist/watch/watchdog.h"

namespace vqlm {

struct NcclOptions {
  /// A collective that takes longer ends the job; 0 = never.
  double timeout_seconds = 600;
  /// What this rank does, and which rank is behind (dist/watch/watchdog.h); the world tells the first of every step.
  std::shared_ptr<RankActivity> activity = nullptr;
  std::function<std::string()> who_is_behind = nullptr;
  /// Ends the job on every rank and does not return: MpiSession::abort. Called from the watchdog's
  /// thread, once NCCL's communicators are aborted.
  std::function<void(const std::string& message)> on_failure = {};
  /// Groups of one rank run through NCCL too, so that one GPU is enough to test it.
  bool force_nccl = false;
  /// Thread blocks of a collective at most, in every group; 0: NCCL's own limit. The same on all ranks.
  int max_ctas = 0;
};

/// True where the program was built with CUDA and NCCL.
bool nccl_built();
/// The library's, "2.28.9", or "none" where the program was built without, or why the library cannot be used.
std::string nccl_version();

class NcclCommunicator final : public Communicator {
 public:
  /// The group of all ranks of `host` (same ranks), which carries NCCL's unique id from its first rank and is not used
  /// later. set_nccl_environment() was called before. The calling thread's current device is this rank's. Collective. Throws Error.
  static std::unique_ptr<NcclCommunicator> make_world(Communicator& host, const NcclOptions& options);
  /// The group of this group's ranks that give the same color, ordered by key (ties by rank). Collective; the parent
  /// must outlive it. Throws Error.
  std::unique_ptr<NcclCommunicator> split(int color, int key, std::string name);
  /// Waits for the group's collectives and leaves; left by an exception, or after a failure, aborts instead, because
  /// the other ranks may never come.
  ~NcclCommunicator() override;

  int rank() const override;
  int size() const override;
  const std::string& name() const override;

  Event all_reduce(Tensor x, Reduce op, Stream stream) override;
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override;
  Event all_gather(Tensor out, Tensor in, Stream stream) override;
  Event all_to_all(Tensor out, Tensor in, Stream stream) override;
  Event all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                     std::span<const std::int64_t> in_counts, Stream stream) override;
  Event broadcast(Tensor x, int root, Stream stream) override;
  void barrier() override;
  /// Suspends the time-outs of all of this rank's groups.
  std::shared_ptr<void> expect_long_wait(const std::string& why) override;
  void begin_step(std::int64_t step) override;
  void group_begin() override;
  void group_end() override;

 private:
  struct Group;  // NcclGroup
  explicit NcclCommunicator(std::unique_ptr<Group> group);

  std::unique_ptr<Group> group_;
};

}  // namespace vqlm
