// Writes the shards of one part of a source.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "data/prepare/encode_pipeline.h"
#include "data/prepare/prepare_manifest.h"
#include "data/shards/token_shards.h"

namespace vqlm {

/// Returns the name of a shard: "train-00012.h5".
std::string shard_name(Split split, std::uint64_t number);

class PartWriter {
 public:
  /// A split's shard is created with its first document, as number first_shard[split].
  PartWriter(std::string folder, ShardMeta meta, std::uint64_t first_record, PerSplit<std::uint64_t> shard_numbers);

  /// tokens: the record's, empty where it is bad. Throws Error, for example for a full disk.
  void add(const EncodedRecord& record, std::span<const std::uint32_t> tokens, Split split);
  /// True where a shard has `shard_tokens` tokens.
  bool full(std::uint64_t shard_tokens) const;
  /// Makes the shards durable under their names. Without it they are removed.
  Part finish();

 private:
  std::string folder_;
  ShardMeta meta_;
  PerSplit<std::uint64_t> shard_numbers_;
  PerSplit<std::unique_ptr<ShardWriter>> writers_;
  Part part_;
};

}  // namespace vqlm
