#include "dist/process_grid.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "core/error.h"
#include "dist/self_communicator.h"

namespace vqlm {
namespace {

std::unique_ptr<Communicator> make_group(const MpiSession& session, Backend& backend, int size, int color, int key,
                                         const char* name) {
  if (size == 1) return std::make_unique<SelfCommunicator>(backend, name);
  return session.split(color, key, name);
}

}  // namespace

int resolve_data_size(int ranks, int data, int tensor) {
  if (tensor < 1 || data < 0) {
    throw UsageError(
        fmt::format("parallel.data = {}, parallel.tensor = {}: tensor must be at least 1, and data at "
                    "least 1 or 0 for \"what is left\"",
                    data, tensor));
  }
  if (data == 0 && ranks % tensor != 0) {
    throw UsageError(
        fmt::format("parallel.tensor = {} does not divide the {} ranks of this job; start a multiple of "
                    "{} ranks (mpirun -n {}) or change parallel.tensor",
                    tensor, ranks, tensor, (ranks / tensor + 1) * tensor));
  }
  const std::int64_t wanted = data == 0 ? ranks : std::int64_t{data} * tensor;
  if (wanted != ranks) {
    throw UsageError(
        fmt::format("parallel.data * parallel.tensor = {} * {} = {}, but this job has {} ranks; start it "
                    "with mpirun -n {} or set parallel.data = 0 for \"what is left\"",
                    data, tensor, wanted, ranks, wanted));
  }
  return ranks / tensor;
}

ProcessGrid::ProcessGrid(const MpiSession& session, Backend& backend, int data, int tensor) {
  const int data_size = resolve_data_size(session.size(), data, tensor);
  const int data_rank = session.rank() / tensor;
  const int tensor_rank = session.rank() % tensor;
  world_ = make_group(session, backend, session.size(), 0, session.rank(), "world");
  data_ = make_group(session, backend, data_size, tensor_rank, data_rank, "data");
  tensor_ = make_group(session, backend, tensor, data_rank, tensor_rank, "tensor");
  if (data_size > 1 && session.count_ranks(session.allows_threads()) == session.size())
    beside_ = session.split_beside(tensor_rank, data_rank, "data");
}

ProcessGrid::ProcessGrid(Backend& backend)
    : world_(std::make_unique<SelfCommunicator>(backend, "world")),
      data_(std::make_unique<SelfCommunicator>(backend, "data")),
      tensor_(std::make_unique<SelfCommunicator>(backend, "tensor")) {}

ProcessGrid::ProcessGrid(std::unique_ptr<Communicator> world, std::unique_ptr<Communicator> data,
                         std::unique_ptr<Communicator> tensor)
    : world_(std::move(world)), data_(std::move(data)), tensor_(std::move(tensor)) {
  VQLM_ASSERT(world_->size() == data_->size() * tensor_->size());
  VQLM_ASSERT(world_->rank() == data_->rank() * tensor_->size() + tensor_->rank());
}

}  // namespace vqlm
