// PlannedMachine: the books of a machine that does not exist. PlanningBackend and PlanningCommunicator enter what the
// program asks of them: operations, bytes, and the time that these take at stated rates.
//
// Time is simulated as the streams of a device: a compute clock, which every op advances, and one clock for each link, on
// which a collective begins when the link is free and the compute clock has reached the call. Waiting for a collective's
// event moves the compute clock to its end; until then compute goes on. An op takes the larger one of operations / peak
// and bytes / memory rate, and a stated time for its launch; a collective takes bytes sent / rate and a stated latency. Both
// are 0 unless stated; contention between ops and collectives is not counted.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/ops/op.h"

namespace vqlm {

/// Rates of one rank's device and links, as stated by the user.
struct StatedRates {
  double product_flops = 790e12;    // matrix products, a second
  double memory_bytes = 4.3e12;     // device memory, read and written, a second
  double network_bytes = 50e9;      // sent by a rank to the data group or the world, a second
  double tensor_link_bytes = 50e9;  // sent by a rank to its tensor group, a second
  double exchange_bytes = 0;        // sent by a rank in an all-to-all over the network, a second; 0: network_bytes
  bool one_link = false;            // data and tensor groups share the tensor group's links: a job within one node
  double op_seconds = 0;            // of every op beside its work
  double collective_seconds = 0;    // of every collective beside its bytes
  double peak_flops = 0;            // what MFU is a share of, a device and second; 0: product_flops
};

enum class Link { network, tensor };

/// The calls of one op together; each operand is counted as read or written once.
struct OpCount {
  std::string_view name;  // as in core/ops, or of Backend's memory functions
  std::int64_t calls = 0;
  double flops = 0;
  double bytes_read = 0;
  double bytes_written = 0;
  double seconds = 0;
};

/// The calls of one collective of one group together.
struct CollectiveCount {
  std::string group;
  std::string_view name;  // as in core/communicator.h
  int ranks = 0;
  std::int64_t calls = 0;
  double payload_bytes = 0;  // of the longer one of input and output; of all_to_all_v, of the input
  double sent_bytes = 0;     // by one rank, with the ring algorithm
  double seconds = 0;
};

class PlannedMachine {
 public:
  explicit PlannedMachine(const StatedRates& rates) : rates_(rates) {}

  /// Empties the books and sets all clocks to 0.
  void clear() { *this = PlannedMachine(rates_); }

  void add_op(std::string_view name, const OpCost& cost);
  /// Returns the time at which the collective ends. received_bytes: where it may be more than what is sent; links carry both at
  /// once, so that the larger number takes the time.
  double add_collective(const std::string& group, std::string_view name, int ranks, Link link, double payload_bytes,
                        double sent_bytes, double received_bytes = 0);
  /// The compute clock, seconds.
  double now() const { return now_; }
  void wait_until(double time) { now_ = now_ < time ? time : now_; }

  const std::vector<OpCount>& ops() const { return ops_; }
  const std::vector<CollectiveCount>& collectives() const { return collectives_; }
  /// Time of ops that are bound by operations, and by bytes, and of launches.
  double product_seconds() const { return product_seconds_; }
  double memory_seconds() const { return memory_seconds_; }
  double launch_seconds() const { return launch_seconds_; }
  double collective_seconds() const;
  /// Sums over ops and collectives.
  double flops() const;
  double sent_bytes() const;
  const StatedRates& rates() const { return rates_; }

 private:
  StatedRates rates_;
  double now_ = 0;
  std::array<double, 2> link_free_{};  // by Link
  double product_seconds_ = 0, memory_seconds_ = 0, launch_seconds_ = 0;
  std::vector<OpCount> ops_;
  std::vector<CollectiveCount> collectives_;
};

}  // namespace vqlm
