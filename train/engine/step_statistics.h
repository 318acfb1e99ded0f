// What every step sums over all ranks: one small reduction carries all of it.
#pragma once

#include <vector>

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

struct StepStatistics {
  double nll = 0, penalty = 0;         // of the step's tokens
  double seconds_data = 0;             // waiting for the loader
  double seconds_head = 0;             // in the output head
  double wish_to_stop = 0;             // ranks that were asked to stop
  double time_is_up = 0;               // ranks whose time limit leaves no room for another step
  double saved = 0;                    // ranks that have written their part of the checkpoint in flight
  double peak_is_low = 0;              // ranks on which a step was faster than products were measured to be
  std::vector<double> by_source = {};  // nll of each source's tokens, where a run has several
  std::vector<double> future_nll = {}, future_tokens = {};  // of each head for a later token
  /// seconds_data and seconds_head of each rank, after the sum.
  std::vector<double> data_by_rank = {}, head_by_rank = {};

  /// Each number becomes its sum over the group's ranks, the same on all of them. Collective.
  void sum_over_ranks(Backend& backend, Communicator& group);
};

}  // namespace vqlm
