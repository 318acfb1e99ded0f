// prepare.json: what a folder of shards was made from and how far its making has come. It is written after every part, so
// a run that was stopped anywhere continues after its last whole part.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/prepare/document.h"
#include "data/shards/token_shards.h"

namespace vqlm {

enum class Split : std::uint8_t { train, heldout };
constexpr std::array<Split, 2> all_splits{Split::train, Split::heldout};
constexpr const char* name_of(Split split) {
  return split == Split::train ? "train" : "heldout";
}

/// One T for each split.
template <class T>
struct PerSplit {
  std::array<T, 2> values{};
  T& operator[](Split split) { return values[static_cast<std::size_t>(split)]; }
  const T& operator[](Split split) const { return values[static_cast<std::size_t>(split)]; }
};

struct SplitCounts {
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;      // end-of-text tokens included
  std::uint64_t text_bytes = 0;  // 0 where the inputs are ids
  SplitCounts& operator+=(const SplitCounts& other);
};

/// Records [first_record, end_record) of a source became these shards: at most one of each split, "" where no document
/// fell into it.
struct Part {
  std::uint64_t first_record = 0;
  std::uint64_t end_record = 0;
  PerSplit<SplitCounts> counts;
  PerSplit<std::string> shards;  // file names
  BadRecordCounts bad{};
};

struct PreparedSource {
  SourceFile file;
  Split split{};            // heldout: all of it
  bool complete = false;    // the parts reach to the end of the file
  std::vector<Part> parts;  // in order of their records
};

/// The options that have to be equal for shards to belong together.
struct ShardOptions {
  std::string tokenizer_sha256;
  std::string text_field;
  double heldout = 0;
  std::uint64_t seed = 0;
  std::uint64_t shard_tokens = 0;
  /// The options of inputs that are ids.
  struct Ids {
    std::int64_t vocab_size = 0;
    std::int64_t eos_id = 0;  // no_eos where there is none
  };
  std::optional<Ids> ids;
  std::optional<std::int64_t> eos_id;  // of --eos beside a tokenizer
  std::string documents = {};          // of --documents; "" where it was left out, and for ids
};

struct PrepareManifest {
  static constexpr const char* file_name = "prepare.json";

  ShardOptions options;
  std::vector<PreparedSource> sources;  // in the order of the shards

  /// Reads the folder's manifest; nothing where it has none. Throws Error for one that cannot be read.
  static std::optional<PrepareManifest> load(const std::string& folder);
  /// Replaces the folder's manifest. Throws Error.
  void save(const std::string& folder) const;
};

/// A path as a manifest holds it: what is not UTF-8 in it is replaced.
std::string path_in_manifest(const std::string& path);

/// The first option that differs, for a message: "--seed 0, here 1"; "" where all are equal.
std::string difference(const ShardOptions& before, const ShardOptions& now);

}  // namespace vqlm
