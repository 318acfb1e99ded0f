// member_entropy with the bound of its workspace as an argument, for tests.
#pragma once

#include <cstdint>

#include "core/cuda/context.h"
#include "core/ops/member_entropy.h"

namespace vqlm::cuda::members {

/// Scores that the workspace may hold at a time: 192 MB of scores and their gradients.
constexpr std::int64_t most_wave_scores = std::int64_t{1} << 25;

/// MemberEntropy. Batches with more scores than `wave_scores` are done in waves, each of which holds two of the largest
/// possible tiles at least.
void member_entropy(const Context& context, const MemberEntropy& op, std::int64_t wave_scores);

}  // namespace vqlm::cuda::members
