// A model's loss on a text, on one rank, and the hidden states that its head sees there.
#pragma once

#include <vector>

#include "core/backend.h"
#include "data/shards/shard_set.h"
#include "train/checkpoint/model_source.h"
#include "train/tools/convert/hidden_states.h"

namespace vqlm {

struct SourceLoss {
  double nll = 0;                  // mean over the predicted tokens, nats
  std::int64_t tokens = 0;         // predicted
  std::vector<float> mean_hidden;  // (d), over their positions
  HiddenStates hidden;             // of these positions, where they are kept

  double perplexity() const;
};

/// A text's samples: those of the perplexity come first, then those that a head is fitted to, never the same.
struct TextParts {
  std::int64_t eval_samples = 0, fit_samples = 0;
  std::int64_t fit_tokens = 0;  // predicted in the latter
};

/// So many tokens each, rounded up to whole samples. Where the text has too few for both, the perplexity leaves the fit what that
/// asks for, but keeps half of the samples.
TextParts split_text(std::uint64_t total_tokens, std::int64_t seq_len, std::int64_t eval_tokens,
                     std::int64_t fit_tokens);

enum class KeepHidden { no, yes };

/// Samples of seq_len predicted tokens each, the text's last one shorter.
struct SourceLossOptions {
  std::int64_t seq_len = 512;
  std::int64_t first_sample = 0;
  std::int64_t samples = 0;  // from there; 0 = all
  KeepHidden keep_hidden = KeepHidden::no;
};

/// The same loss as vqlm eval's of these tokens. first_sample must be in the text. Throws Error where the shards are not of the model's vocabulary.
SourceLoss measure_loss(const ModelSource& source, Backend& backend, const ShardSet& shards,
                        const SourceLossOptions& options);

}  // namespace vqlm
