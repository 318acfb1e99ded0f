// One output head with parameters of its own, for benchmarks.
#pragma once

#include <memory>
#include <vector>

#include "core/model/head/low_rank_head.h"
#include "core/model/head/vq_head.h"
#include "train/tools/bench/head_bench.h"

namespace vqlm {

/// What all heads of a benchmark share.
struct HeadSetting {
  const TensorParallel& tensor;
  const HeadBenchOptions& options;
  const std::vector<std::int64_t>& counts;  // (V): targets' frequencies, biases' start
};

enum class HeadUse { training, decoding };

class BenchHead {
 public:
  /// Allocates everything; the parameters are zeros. Throws Error where the back end has no memory.
  BenchHead(const HeadSetting& setting, BenchedHead kind, HeadUse use);
  /// Draws the parameters. To be called before anything else.
  void initialize(const HeadSetting& setting);

  OutputHead& head() { return *head_; }
  /// Parameters, gradients, map and workspace; not the embedding of vq_embedding, which is the model's.
  std::size_t bytes() const { return bytes_; }
  /// Of the last search; 0 for heads without clusters.
  std::int64_t clusters_visited() const { return vq_ == nullptr ? 0 : vq_->clusters_visited(); }
  std::int64_t clusters() const { return vq_of(config_) == nullptr ? 0 : vq_of(config_)->clusters; }
  /// V d where members are rows of the embedding, else 0.
  std::int64_t table_numbers() const {
    const VqHeadConfig* const vq = vq_of(config_);
    return vq != nullptr && vq->by_embedding() ? model_.vocab_size * model_.d_model : 0;
  }

 private:
  ModelConfig model_;
  HeadConfig config_;
  ParameterStore parameters_;
  std::unique_ptr<OutputHead> head_;
  const VqHead* vq_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Why a head cannot be made within `memory` bytes: a sentence with both numbers and the way out; empty where it can.
std::string memory_refusal(const HeadSetting& setting, BenchedHead kind, HeadUse use);

}  // namespace vqlm
