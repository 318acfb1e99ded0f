// MpiSession: the life of MPI in this process. Made once in launch/, before any communicator; destroyed last.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/mpi_communicator.h"

namespace vqlm {

class MpiSession {
 public:
  /// MPI_Init_thread with MPI_THREAD_FUNNELED: this thread alone makes MPI calls. Started without mpirun the
  /// world has one rank. Throws Error.
  MpiSession();
  /// MPI_Finalize. Left by an exception with other ranks in the world it aborts the job instead, because they
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

  /// "Open MPI v4.1.4", and "funneled" or a higher thread level.
  std::string mpi_version() const;
  std::string thread_level() const;

  /// The texts of all ranks in rank order, on every rank. Collective over the world. Throws Error.
  std::vector<std::string> gather_texts(const std::string& text) const;
  /// The texts of the ranks on this rank's node, by local rank. Collective over them. Throws Error.
  std::vector<std::string> gather_texts_of_node(const std::string& text) const;

  /// On how many ranks `yes` is true. Collective over the world. Throws Error.
  int count_ranks(bool yes) const;

  /// The group of ranks that give the same color, ordered by key (ties by world rank). Collective over the
  /// world. It must be destroyed before the session. Throws Error.
  std::unique_ptr<Communicator> split(int color, int key, std::string name, MpiChunking chunking = {}) const;

  /// Ends every rank of the job with exit code `code`, for a rank that fails while others wait for it. Prints
  /// "rank R: message" to standard error.
  [[noreturn]] void abort(std::string_view message, int code) const;

 private:
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  int exceptions_at_start_;
};

}  // namespace vqlm
