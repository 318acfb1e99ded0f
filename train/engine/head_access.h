// The VQ head's parameters and moments, out of a run's device memory and back.
#pragma once

#include "core/backend.h"
#include "core/parameters.h"
#include "dist/process_grid.h"
#include "train/codes/map_carry_over.h"
#include "train/engine/optimizer.h"

namespace vqlm {

/// All of it on every rank, moments gathered from the data ranks that own them. Collective over the world.
HeadState read_head(Backend& backend, const ProcessGrid& grid, const ParameterStore& parameters,
                    const Optimizer& optimizer);

/// Writes values (and what ops read of them) and the moments that this rank owns. Sizes must be the parameters' own.
void write_head(Backend& backend, ParameterStore& parameters, const Optimizer& optimizer,
                const HeadState& head);

/// root's on every rank. Sizes must be the same everywhere. Collective.
void broadcast_head(Backend& backend, Communicator& group, int root, HeadState& head);

/// A number that tells heads on this device apart: of the values as ops read them. Blocks.
std::uint64_t head_fingerprint(Backend& backend, const ParameterStore& parameters);

}  // namespace vqlm
