#include "train/engine/planned_machine.h"

#include <algorithm>

namespace vqlm {

void PlannedMachine::add_op(std::string_view name, const OpCost& cost) {
  const double by_operations = cost.flops / rates_.product_flops;
  const double by_bytes = (cost.bytes_read + cost.bytes_written) / rates_.memory_bytes;
  const double work = std::max(by_operations, by_bytes);
  (by_operations >= by_bytes ? product_seconds_ : memory_seconds_) += work;
  launch_seconds_ += rates_.op_seconds;
  const double seconds = work + rates_.op_seconds;
  now_ += seconds;

  auto entry = std::find_if(ops_.begin(), ops_.end(), [&](const OpCount& op) { return op.name == name; });
  if (entry == ops_.end()) entry = ops_.insert(ops_.end(), OpCount{.name = name});
  ++entry->calls;
  entry->flops += cost.flops;
  entry->bytes_read += cost.bytes_read;
  entry->bytes_written += cost.bytes_written;
  entry->seconds += seconds;
}

double PlannedMachine::add_collective(const std::string& group, std::string_view name, int ranks, Link link,
                                      double payload_bytes, double sent_bytes, double received_bytes) {
  const bool exchange = name.starts_with("all_to_all") && rates_.exchange_bytes > 0;
  const double network_rate = exchange ? rates_.exchange_bytes : rates_.network_bytes;
  const double seconds =
      std::max(sent_bytes, received_bytes) / (link == Link::tensor ? rates_.tensor_link_bytes : network_rate) +
      rates_.collective_seconds;
  double& free = link_free_[static_cast<std::size_t>(link)];
  free = std::max(free, now_) + seconds;

  auto entry = std::find_if(collectives_.begin(), collectives_.end(),
                            [&](const CollectiveCount& c) { return c.group == group && c.name == name; });
  if (entry == collectives_.end()) {
    entry = collectives_.insert(collectives_.end(), CollectiveCount{.group = group, .name = name, .ranks = ranks});
  }
  ++entry->calls;
  entry->payload_bytes += payload_bytes;
  entry->sent_bytes += sent_bytes;
  entry->seconds += seconds;
  return free;
}

double PlannedMachine::flops() const {
  double flops = 0;
  for (const OpCount& op : ops_) flops += op.flops;
  return flops;
}

double PlannedMachine::sent_bytes() const {
  double bytes = 0;
  for (const CollectiveCount& collective : collectives_) bytes += collective.sent_bytes;
  return bytes;
}

double PlannedMachine::collective_seconds() const {
  double seconds = 0;
  for (const CollectiveCount& collective : collectives_) seconds += collective.seconds;
  return seconds;
}

}  // namespace vqlm
