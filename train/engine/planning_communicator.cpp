#include "train/engine/planning_communicator.h"

#include "dist/self_communicator.h"

namespace vqlm {

Event PlanningCommunicator::count(std::string_view collective, Tensor payload, double sent_share) {
  const auto bytes = static_cast<double>(payload.bytes());
  return Event(
      std::make_shared<double>(machine_.add_collective(name_, collective, size_, link_, bytes, sent_share * bytes)));
}

Event PlanningCommunicator::all_reduce(Tensor x, Reduce /*op*/, Stream /*stream*/) {
  return count("all_reduce", x, 2 * others());
}

Event PlanningCommunicator::reduce_scatter(Tensor out, Tensor in, Reduce /*op*/, Stream /*stream*/) {
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() * size_ == in.numel());
  return count("reduce_scatter", in, others());
}

Event PlanningCommunicator::all_gather(Tensor out, Tensor in, Stream /*stream*/) {
  VQLM_ASSERT(out.dtype() == in.dtype() && in.numel() * size_ == out.numel());
  return count("all_gather", out, others());
}

Event PlanningCommunicator::all_to_all(Tensor out, Tensor in, Stream /*stream*/) {
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel());
  return count("all_to_all", in, others());
}

Event PlanningCommunicator::all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                                         std::span<const std::int64_t> in_counts, Stream /*stream*/) {
  check_all_to_all_v(*this, out, out_counts, in, in_counts);
  const auto bytes = [&](std::int64_t elements) {
    return static_cast<double>(elements) * static_cast<double>(size_of(in.dtype()));
  };
  const std::int64_t own = in_counts[static_cast<std::size_t>(rank_)];
  return Event(std::make_shared<double>(machine_.add_collective(name_, "all_to_all_v", size_, link_, bytes(in.numel()),
                                                                bytes(in.numel() - own), bytes(out.numel() - own))));
}

Event PlanningCommunicator::broadcast(Tensor x, int root, Stream /*stream*/) {
  VQLM_ASSERT(root >= 0 && root < size_);
  return count("broadcast", x, 1);
}

ProcessGrid make_planning_grid(PlannedMachine& machine, Backend& backend, int data, int tensor, int rank) {
  VQLM_ASSERT(data >= 1 && tensor >= 1 && rank >= 0 && rank < data * tensor);
  const auto group = [&](const char* name, int own_rank, int size, Link link) -> std::unique_ptr<Communicator> {
    if (size == 1) return std::make_unique<SelfCommunicator>(backend, name);
    return std::make_unique<PlanningCommunicator>(machine, name, own_rank, size, link);
  };
  // Where there is one data group only, its world is its tensor group, on the same links.
  const Link data_link = machine.rates().one_link ? Link::tensor : Link::network;
  const Link world_link = data == 1 ? Link::tensor : data_link;
  return ProcessGrid(group("world", rank, data * tensor, world_link), group("data", rank / tensor, data, data_link),
                     group("tensor", rank % tensor, tensor, Link::tensor));
}

}  // namespace vqlm
