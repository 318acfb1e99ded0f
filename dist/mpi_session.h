// MpiSession: the ranks of this job and the life of MPI in this process. Made once in launch/, before any communicator;
// destroyed last. A program links one of two libraries: vqlm_mpi, or vqlm_mpi_absent, whose sessions are of one rank.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/mpi_communicator.h"
#include "dist/watch/rank_activity.h"

namespace vqlm {

/// False where the program links vqlm_mpi_absent.
bool mpi_built();

enum class MpiStart {
  for_several_ranks,  // a process that no launcher connects with others makes no MPI call at all
  always,             // for tests and benchmarks of what runs over MPI; without MPI in the program the same as above
};

class MpiSession {
 public:
  /// MPI_Init_thread, asking for MPI_THREAD_MULTIPLE (or by VQLM_MPI_THREADS=funneled not) and content with MPI_THREAD_FUNNELED: this thread makes all MPI calls
  /// but those of communicators by split_beside(). A rank that is alone needs none of it
  /// (dist/launcher.h says when), so that a machine without a working MPI trains too. Throws Error, also where a launcher
  /// started several ranks of a program without MPI.
  explicit MpiSession(MpiStart start = MpiStart::for_several_ranks);
  /// MPI_Finalize, where it was started. Left by an exception with other ranks in the world it aborts the job instead, because they
  /// would wait for this rank for ever; catch inside the session and call abort() to give a reason.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// This rank's number among those on its node, and how many these are: which device, and how many cores,
  /// are its own.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// What this rank does: told of every collective over MPI, this session's and its communicators'.
  const std::shared_ptr<RankActivity>& activity() const { return activity_; }

  /// Whether MPI runs in this process.
  bool started() const { return started_; }
  /// "Open MPI v4.1.4", or "none" in a program without it.
  std::string mpi_version() const;
  /// "funneled" or a higher thread level, or "not started".
  std::string thread_level() const;

  /// The texts of all ranks in rank order, on every rank. Collective over the world. Throws Error.
  std::vector<std::string> gather_texts(const std::string& text) const;
  /// The texts of the ranks on this rank's node, by local rank. Collective over them. Throws Error.
  std::vector<std::string> gather_texts_of_node(const std::string& text) const;

  /// On how many ranks `yes` is true. Collective over the world. Throws Error.
  int count_ranks(bool yes) const;

  /// The group of ranks that give the same color, ordered by key (ties by world rank). Collective over the
  /// world. It must be destroyed before the session. For host memory. Throws Error.
  std::unique_ptr<Communicator> split(int color, int key, std::string name, MpiChunking chunking = {}) const;
  /// Whether other threads than this one may call MPI, too.
  bool allows_threads() const;
  /// As split(), for one thread beside this one (MpiCaller::thread_beside). Where allows_threads().
  std::unique_ptr<Communicator> split_beside(int color, int key, std::string name) const;

  /// Ends every rank of the job with exit code `code`, for a rank that fails while others wait for it. Prints
  /// "rank R: message" to standard error.
  [[noreturn]] void abort(std::string_view message, int code) const;

 private:
  bool started_ = false;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  int exceptions_at_start_;
  std::shared_ptr<RankActivity> activity_ = std::make_shared<RankActivity>();
};

}  // namespace vqlm
