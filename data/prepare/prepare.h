// Makes token shards of text, or of ids that another tokenizer made: what `vqlm prepare` does.
//
// The unit of work is a part: a run of a source's records (documents) that become one training and one held-out shard. A part ends
// where one of them has shard_tokens tokens, or the source ends. Parts follow the order of the sources and records, so
// the shards are the same for any number of jobs; and a finished part is never made again, so a stopped run goes on
// where it was.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/prepare/prepare_manifest.h"
#include "data/prepare/prepare_options.h"

namespace vqlm {

/// How far a run has come.
struct PrepareProgress {
  std::string source;
  std::size_t source_number = 0;  // from 1
  std::size_t source_count = 0;
  std::uint64_t documents = 0;   // encoded by this run
  std::uint64_t tokens = 0;      // of them
  std::uint64_t text_bytes = 0;  // of them; 0 where the inputs are ids
  std::uint64_t file_bytes = 0;  // of the inputs on disk, read or found finished
  std::uint64_t total_file_bytes = 0;
  double seconds = 0;  // since encoding began
};

/// The contents of the folder now, and what this run did for them.
struct PrepareReport {
  PerSplit<SplitCounts> counts;
  PerSplit<std::uint64_t> shards;
  BadRecordCounts bad{};
  std::uint64_t sources = 0;
  std::uint64_t parts_kept = 0;  // found finished
  std::uint64_t parts_made = 0;
  std::uint64_t documents_encoded = 0;
  std::uint64_t tokens_encoded = 0;
  std::uint64_t text_bytes_encoded = 0;  // 0 where the inputs are ids
  double tokenizer_seconds = 0;          // loading or training it
  double encode_seconds = 0;             // reading, checking, encoding, writing
  std::string tokenizer;                 // its path; "none" where the inputs are ids and none was given
  std::int64_t vocab_size = 0;
};

/// Fills the folder options.out with train-*.h5, heldout-*.h5, the tokenizer's files and prepare.json. Bad records and damaged
/// shards are logged. Throws UsageError for options that make no sense, Error for everything in the way: inputs without
/// match, damaged inputs, more bad records than allowed, a folder that cannot be written or that holds the shards of
/// other inputs or options, a full disk.
PrepareReport prepare(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& progress = {});

}  // namespace vqlm
