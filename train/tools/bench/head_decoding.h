// Decoding one token at a time through an output head.
#pragma once

#include "train/tools/bench/bench_head.h"

namespace vqlm {

/// Fills the decoding of the dense, VQ and VQ-Logits results (dense_plain decodes as dense does and keeps none). Heads take
/// turns, operation by operation. Hidden states are normal, of such a size that a logit has options.spread as its standard
/// deviation: a trained model's distributions are about as uneven.
void run_head_decoding(HeadBenchResult& result, const HeadSetting& setting);

}  // namespace vqlm
