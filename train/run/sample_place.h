// Where a sample of a run comes from: its shard, its documents, and the files and records that these were made of. Nothing
// is stored for it: the order of samples and the shards' own tables tell.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/shards/sample_order.h"
#include "data/shards/shard_set.h"

namespace vqlm {

/// The part of a document that lies in a sample.
struct SampleDocument {
  std::string shard;
  std::uint64_t token = 0;        // where the part begins in the whole stream,
  std::uint64_t document = 0;     // in its shard, from 0
  std::uint64_t shard_token = 0;  // where the part begins in the shard,
  std::uint64_t offset = 0;       // and in the document
  std::uint64_t tokens = 0;
  std::string file;          // that the document was made of; empty where the shard does not tell
  std::int64_t record = -1;  // in that file, from 0; -1 where the shard does not tell
};

struct SamplePlace {
  std::uint64_t position = 0;  // in the run's sequence of samples, from 0
  std::string source;
  SampleOrder::Sample sample;
  std::vector<SampleDocument> documents;
};

/// The places of samples of a run. Reads the tables of their shards, and keeps some.
class SamplePlaces {
 public:
  /// order: of these shards, in samples of seq_len tokens.
  SamplePlaces(ShardSet shards, SampleOrder order, std::uint64_t seq_len);

  /// Of the run's sample `position`.
  SamplePlace at(std::uint64_t position);
  ShardSet& shards() { return shards_; }
  SampleOrder& order() { return order_; }

 private:
  struct Tables {
    std::vector<std::uint64_t> documents, records;
    std::string file;
  };
  const Tables& tables(std::size_t shard);

  ShardSet shards_;
  SampleOrder order_;
  std::uint64_t seq_len_;
  std::map<std::size_t, Tables> tables_;  // by shard
};

/// "web-00003.h5 document 812 from token 0 (record 1534 of web.jsonl.gz)", of the document that has most of the sample, and
/// "and 2 more" behind it.
std::string describe(const SamplePlace& place);

}  // namespace vqlm
