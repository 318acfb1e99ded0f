// ProcessGrid: the ranks of a job as data x tensor. Tensor ranks are neighbours, because they exchange most
// and should share a node: world rank = data_rank * tensor + tensor_rank.
#pragma once

#include <memory>

#include "core/backend.h"
#include "core/communicator.h"
#include "dist/mpi_session.h"
#include "dist/nccl_communicator.h"

namespace vqlm {

class ProcessGrid {
 public:
  /// data * tensor must be the session's size; data = 0 means "what is left". Collective over the world.
  /// Groups of one rank are alone and make no MPI calls; `backend` copies for them and must outlive the grid,
  /// as must the session. Throws UsageError (the same on every rank) with the numbers and the way out.
  ProcessGrid(const MpiSession& session, Backend& backend, int data, int tensor);
  /// The same over NCCL where `backend` is a device, with `options`, whose on_failure defaults to the session's abort;
  /// over MPI otherwise. The calling thread's current device is the back end's. Groups of one rank are alone unless
  /// options.force_nccl. Throws Error where the program has no NCCL. In the library vqlm_nccl or vqlm_nccl_absent.
  ProcessGrid(const MpiSession& session, Backend& backend, int data, int tensor, const NcclOptions& options);
  /// A grid of 1 x 1 without MPI.
  explicit ProcessGrid(Backend& backend);
  /// The grid that ready communicators form; this rank has the same place in all three. For communicators that only
  /// count, or that watch others.
  ProcessGrid(std::unique_ptr<Communicator> world, std::unique_ptr<Communicator> data,
              std::unique_ptr<Communicator> tensor);

  /// Every rank; the ranks with the same tensor_rank; the ranks with the same data_rank.
  Communicator& world() const { return *world_; }
  Communicator& data() const { return *data_; }
  Communicator& tensor() const { return *tensor_; }

  /// The ranks of data() once more, for the collectives of one thread beside the main one; null where there are none, or
  /// the MPI library allows no second thread.
  Communicator* beside() const { return beside_.get(); }

  int data_size() const { return data_->size(); }
  int tensor_size() const { return tensor_->size(); }
  int data_rank() const { return data_->rank(); }
  int tensor_rank() const { return tensor_->rank(); }

 private:
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Communicator> data_;
  std::unique_ptr<Communicator> tensor_;
  std::unique_ptr<Communicator> beside_;
};

/// The data size of a grid over `ranks` ranks: `data`, or what is left for data = 0. Throws UsageError where
/// the product does not fit.
int resolve_data_size(int ranks, int data, int tensor);

}  // namespace vqlm
