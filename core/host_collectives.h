// Collectives on small host arrays, through the back end's memory, so that the same call serves MPI and NCCL.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

/// values: the sum over all ranks of theirs. Collective; the same length everywhere.
void sum_over(Backend& backend, Communicator& group, std::vector<double>& values);

/// The largest of the ranks' values. Collective.
double max_over(Backend& backend, Communicator& group, double value);

/// The text of the lowest rank whose text is not empty, on every rank; empty where all are. Collective.
std::string first_text(Backend& backend, Communicator& group, const std::string& text);

/// values: root's on every rank, whatever length they had elsewhere.
void broadcast_from(Backend& backend, Communicator& group, int root, std::vector<std::int64_t>& values);
void broadcast_from(Backend& backend, Communicator& group, int root, std::vector<std::int32_t>& values);
void broadcast_from(Backend& backend, Communicator& group, int root, std::vector<std::uint8_t>& values);

/// The ranks' values in rank order, on every rank. Collective; the same length everywhere.
std::vector<std::uint64_t> gather_from_all(Backend& backend, Communicator& group,
                                           const std::vector<std::uint64_t>& values);
std::vector<std::uint8_t> gather_from_all(Backend& backend, Communicator& group,
                                          const std::vector<std::uint8_t>& values);

}  // namespace vqlm
