// The text of vqlm convert --data: perplexities before and after, and what a fitted head is fitted to.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/backend.h"
#include "data/shards/shard_set.h"
#include "launch/environment.h"
#include "train/tools/convert/source_loss.h"
#include "train/tools/convert/vq_fit.h"

namespace vqlm {

struct ConvertTextOptions {
  std::string data;
  std::int64_t eval_tokens = 100'000;
  std::int64_t fit_tokens = 65'536;
  std::int64_t seq_len = 0;  // 0: as the model was trained, else 512
  std::optional<DeviceKind> device;
};

enum class FitClusters { no, yes };

class ConvertText {
 public:
  /// Throws UsageError where the text has too few tokens for the fit, Error where it is not of the model's vocabulary.
  ConvertText(const ConvertTextOptions& options, const ModelSource& source, FitClusters fit, Environment& environment);

  SourceLoss loss(const ModelSource& source);
  /// `before`: the dense model's loss, for its mean hidden state where nothing is fitted.
  TextStatistics statistics(const ModelSource& source, const SourceLoss& before);
  void report(const SourceLoss& before, const SourceLoss& after) const;

 private:
  std::unique_ptr<Backend> backend_;
  ShardSet shards_;
  std::int64_t seq_len_;
  TextParts parts_;
};

}  // namespace vqlm
