// PlanningCommunicator: a group whose other ranks do not exist. Collectives move nothing; their bytes and their time go
// into the machine's books.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "core/communicator.h"
#include "dist/process_grid.h"
#include "train/engine/planned_machine.h"

namespace vqlm {

class PlanningCommunicator final : public Communicator {
 public:
  /// The machine must outlive the communicator.
  PlanningCommunicator(PlannedMachine& machine, std::string name, int rank, int size, Link link)
      : machine_(machine), name_(std::move(name)), rank_(rank), size_(size), link_(link) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }

  // A rank of a ring sends 2 (P - 1) / P of an all-reduce's bytes, (P - 1) / P of the longer tensor of the others, and
  // passes a broadcast on whole: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms" (2009). Of an all-to-all of
  // different blocks it sends those that are not its own.
  Event all_reduce(Tensor x, Reduce op, Stream stream) override;
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override;
  Event all_gather(Tensor out, Tensor in, Stream stream) override;
  Event all_to_all(Tensor out, Tensor in, Stream stream) override;
  Event all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                     std::span<const std::int64_t> in_counts, Stream stream) override;
  Event broadcast(Tensor x, int root, Stream stream) override;
  void barrier() override {}

 private:
  /// sent_share: bytes sent by this rank, in the payload's.
  Event count(std::string_view collective, Tensor payload, double sent_share);
  /// (P - 1) / P.
  double others() const { return static_cast<double>(size_ - 1) / size_; }

  PlannedMachine& machine_;
  std::string name_;
  int rank_;
  int size_;
  Link link_;
};

/// The grid of data x tensor ranks as world rank `rank` sees it. Groups of one rank are alone and copy on `backend`, as
/// in a real grid; backend and machine must outlive the grid.
ProcessGrid make_planning_grid(PlannedMachine& machine, Backend& backend, int data, int tensor, int rank);

}  // namespace vqlm
