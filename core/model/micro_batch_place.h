#pragma once

namespace vqlm {

/// Where a micro-batch stands in its optimizer step. The first one begins the gradients, and the last one completes them:
/// between the two, what is linear in the gradients of all micro-batches may wait for the last.
struct MicroBatchPlace {
  bool first = true, last = true;
};

}  // namespace vqlm
