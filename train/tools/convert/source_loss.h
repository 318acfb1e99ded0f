// A model's loss on a text, on one rank, and the mean hidden state that its head sees there.
#pragma once

#include <vector>

#include "core/backend.h"
#include "data/shards/shard_set.h"
#include "train/checkpoint/model_source.h"

namespace vqlm {

struct SourceLoss {
  double nll = 0;                  // mean over the predicted tokens, nats
  std::int64_t tokens = 0;         // predicted
  std::vector<float> mean_hidden;  // (d), over their positions

  double perplexity() const;
};

struct SourceLossOptions {
  std::int64_t seq_len = 512;
  std::int64_t max_tokens = 0;  // predicted tokens to stop after, rounded up to whole samples; 0 = all
};

/// The same loss as vqlm eval's of these tokens. Throws Error where the shards are not of the model's vocabulary.
SourceLoss measure_loss(const ModelSource& source, Backend& backend, const ShardSet& shards,
                        const SourceLossOptions& options);

}  // namespace vqlm
