// member_entropy with the bound of its workspace as an argument, for tests, and what it shares with parts of the members.
#pragma once

#include <cstdint>

#include "core/cuda/context.h"
#include "core/ops/member_part.h"

namespace vqlm::cuda::members {

/// Scores that the workspace may hold at a time: 192 MB of scores and their gradients.
constexpr std::int64_t most_wave_scores = std::int64_t{1} << 25;

struct Problem;

/// Carves a block of the workspace, then tiles, scores and gradients of `problem`, whose vectors, operands and sizes are set:
/// the whole op where members have vectors. members: of all clusters. largest: bounds those of one. wave_scores: see below.
void vector_entropy(const Context& context, Problem& problem, std::int64_t rows, std::int64_t members,
                    std::int64_t largest, std::int64_t wave_scores);

/// MemberEntropy. Batches with more scores than `wave_scores` are done in waves, each of which holds two of the largest
/// possible tiles at least.
void member_entropy(const Context& context, const MemberEntropy& op, std::int64_t wave_scores);
/// MemberStatistics and MemberPartGradient, likewise.
void member_statistics(const Context& context, const MemberStatistics& op, std::int64_t wave_scores);
void member_part_gradient(const Context& context, const MemberPartGradient& op, std::int64_t wave_scores);

}  // namespace vqlm::cuda::members
