// The grid over NCCL, apart from process_grid.cpp, so that programs without devices need not link NCCL or its absence.
#include "dist/nccl_communicator.h"
#include "dist/process_grid.h"
#include "dist/self_communicator.h"

namespace vqlm {

ProcessGrid::ProcessGrid(const MpiSession& session, Backend& backend, int data, int tensor, const NcclOptions& options)
    : ProcessGrid(backend) {
  if (backend.host_accessible()) {
    *this = ProcessGrid(session, backend, data, tensor);
    return;
  }
  const int data_size = resolve_data_size(session.size(), data, tensor);
  if (session.size() == 1 && !options.force_nccl) return;

  NcclOptions complete = options;
  if (!complete.on_failure) {
    complete.on_failure = [&session](const std::string& message) { session.abort(message, 1); };
  }
  const auto host = session.split(0, session.rank(), "world");
  auto world = NcclCommunicator::make_world(*host, complete);
  const int data_rank = session.rank() / tensor;
  const int tensor_rank = session.rank() % tensor;
  // Both splits are collective over the world, so every rank makes a group or none does.
  if (data_size > 1 || options.force_nccl) data_ = world->split(tensor_rank, data_rank, "data");
  if (tensor > 1 || options.force_nccl) tensor_ = world->split(data_rank, tensor_rank, "tensor");
  world_ = std::move(world);
}

}  // namespace vqlm
