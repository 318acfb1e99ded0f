// The checks of vqlm doctor: each runs about a second, knows the right answer, and says how fast it was.
#pragma once

#include <string>

#include "core/backend.h"
#include "core/communicator.h"
#include "data/shards/shard_set.h"

namespace vqlm {

/// One check's outcome on one rank.
struct DoctorCheck {
  bool ok = true;
  std::string text{};  // what was found; for a failed one what is wrong and the way out
  double rate = 0;     // 0 where nothing was timed
  std::string unit{};  // of rate: "FLOP/s", "B/s", "tokens/s"
};

/// Products of small integers in the activation dtype, whose sums are exact, in both layouts of the operands; on this rank
/// alone.
DoctorCheck check_matmul_result(Backend& backend);

/// The best rate of products by all ranks of `world` together. Collective.
DoctorCheck check_matmul_speed(Backend& backend, Communicator& world);

/// Sums of small integers over the group, which are exact in any order, and the bandwidth of large all-reduces: "bus"
/// bandwidth 2 (P - 1) / P * bytes / seconds, which does not depend on P where every link is as fast. Collective.
DoctorCheck check_all_reduce(Backend& backend, Communicator& group);

/// Whether a file of vqlm tune is for this card and library, and the library takes its algorithms; on this rank alone.
DoctorCheck check_products(Backend& backend, const std::string& file);

/// Reads the shards of `glob` for about a second from where part `part` of `parts` begins: checksums and token ids of every
/// chunk are checked on the way. rate is this rank's.
DoctorCheck check_shards(const std::string& glob, int part, int parts);

}  // namespace vqlm
