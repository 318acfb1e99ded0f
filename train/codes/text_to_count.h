// The text that unigram counts and code maps are made from: a stream of tokens, or what of it a run trains on.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/shards/sample_order.h"
#include "data/shards/shard_set.h"
#include "train/codes/counting_ranks.h"

namespace vqlm {

class TextToCount {
 public:
  /// All of the stream where it has at most max_tokens, else blocks of 64Ki tokens spread evenly over it, max_tokens in total,
  /// rounded up to whole blocks.
  TextToCount(const ShardSet& shards, std::uint64_t max_tokens);
  /// The tokens that a run predicts in its first n samples: sample i, the tokens [i T, i T + T], predicts all but its first.
  /// Each sample counts once, however often it is read, and neighbouring ones are one text. Where they have more than
  /// max_tokens, only the first samples of the run that have as many: at least one. Memory: 8 bytes a sample.
  TextToCount(const ShardSet& shards, SampleOrder order, std::uint64_t n, std::uint64_t max_tokens);

  /// Neighbouring tokens. A token, or a pair of tokens, belongs to one block alone.
  struct Block {
    std::span<const std::int32_t> tokens;
    std::span<const std::int32_t> counted;  // the part of them that is counted here
    std::size_t pairs = 0;  // pairs of tokens are counted here whose earlier one is among the first so many
  };
  /// Calls visit with this rank's part of the text, in the order of the shards, so that each rank decodes a chunk of theirs
  /// once. A pair is seen whole where its tokens are at most `following` places apart.
  void visit(const std::function<void(const Block& block)>& visit, const CountingRanks& ranks = {},
             std::size_t following = 1) const;

  const ShardSet& shards() const { return shards_; }
  /// Tokens that are counted.
  std::uint64_t tokens() const;
  /// Samples that are counted, and all different ones that the run reads; 0 where the text is the stream.
  std::uint64_t samples() const { return samples_.size(); }
  std::uint64_t samples_of_run() const { return samples_of_run_; }

 private:
  void visit_stream(const std::function<void(const Block& block)>& visit, const CountingRanks& ranks,
                    std::size_t following) const;
  void visit_samples(const std::function<void(const Block& block)>& visit, const CountingRanks& ranks,
                     std::size_t following) const;
  std::uint64_t blocks() const;

  ShardSet shards_;
  std::uint64_t max_tokens_ = 0;
  std::uint64_t seq_len_ = 0;           // 0: the stream
  std::vector<std::uint64_t> samples_;  // their first tokens, rising
  std::uint64_t samples_of_run_ = 0;
};

}  // namespace vqlm
