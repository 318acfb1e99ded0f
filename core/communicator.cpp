#include "core/communicator.h"

#include <algorithm>
#include <numeric>

namespace vqlm {
namespace {

void check_blocks(int ranks, Tensor x, std::span<const std::int64_t> counts) {
  VQLM_ASSERT(counts.size() == static_cast<std::size_t>(ranks));
  VQLM_ASSERT(std::ranges::all_of(counts, [](std::int64_t count) { return count >= 0; }));
  VQLM_ASSERT(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == x.numel());
}

}  // namespace

void check_all_to_all_v(const Communicator& group, Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                        std::span<const std::int64_t> in_counts) {
  VQLM_ASSERT(out.dtype() == in.dtype());
  check_blocks(group.size(), out, out_counts);
  check_blocks(group.size(), in, in_counts);
  const auto self = static_cast<std::size_t>(group.rank());
  VQLM_ASSERT(out_counts[self] == in_counts[self]);
}

}  // namespace vqlm
