// MpiCommunicator: collectives over MPI on host memory; every call has finished when it returns.
//
// Blocks of different sizes (all_to_all_v) go as messages between pairs: MPI_Alltoallv has int places, which blocks of a
// model's size exceed.
//
// Reductions exchange blocks (MPI_Alltoall) and add them here in rank order, because that fixes the sum's
// order by construction, whatever algorithm the MPI library picks, and because Open MPI 4.1's
// MPI_Reduce_scatter_block is slow: 16 MiB on 2 ranks of one machine take 11.9 ms there, against 2.0 ms for
// the exchange and about as much for the sum.
#pragma once

#include <climits>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/communicator.h"
#include "dist/watch/rank_activity.h"

namespace vqlm {

/// How a collective is cut into MPI calls. The defaults serve; tests shrink them to reach the paths of large
/// counts.
struct MpiChunking {
  /// Elements of one rank in one MPI call: MPI counts are int.
  std::int64_t elements_per_call = INT_MAX;
  /// Received blocks of a reduction that wait to be added. Larger means fewer meetings of the ranks, smaller means
  /// that the blocks are still in a cache when they are added.
  std::int64_t scratch_bytes = 4 << 20;
};

/// Which thread makes the collectives. The one beside the main thread asks MPI whether they are done and sleeps in between, so
/// as to leave its core to the main thread's work, unless that waits for it; those that watch the ranks hear of it by inside()
/// alone. It makes reduce_scatter and all_gather, and no other collective.
enum class MpiCaller { main_thread, thread_beside };

class MpiCommunicator final : public Communicator {
 public:
  /// The group of world ranks that give the same color, ordered by key (ties by world rank). Collective over
  /// the world; MPI must be initialised (MpiSession). `activity` is told of every collective. Throws Error.
  static std::unique_ptr<MpiCommunicator> split_world(int color, int key, std::string name,
                                                      std::shared_ptr<RankActivity> activity, MpiChunking chunking = {},
                                                      MpiCaller caller = MpiCaller::main_thread);
  ~MpiCommunicator() override;

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
  [[nodiscard]] std::shared_ptr<void> expect_long_wait(const std::string& why) override;
  [[nodiscard]] std::shared_ptr<void> inside(std::string_view collective) override;
  void abandon() override;
  void begin_step(std::int64_t step) override;

 private:
  struct Group;  // the MPI_Comm and the steps that need MPI's types
  explicit MpiCommunicator(std::unique_ptr<Group> group);

  std::unique_ptr<Group> group_;
};

}  // namespace vqlm
