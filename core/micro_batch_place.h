#pragma once

namespace vqlm {

/// Where a micro-batch stands in its optimizer step. The first one begins the gradients and brings in what the last update made
/// of the parameters; the last one completes the gradients, for which what is linear in those of all micro-batches may wait.
struct MicroBatchPlace {
  bool first = true, last = true;
};

}  // namespace vqlm
