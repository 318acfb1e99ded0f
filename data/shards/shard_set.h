// The shards of a split, or of several sources, as one stream of tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shards/token_shards.h"

namespace vqlm {

class ShardTokenCache;

/// The shards of a split, in name order, as one stream of tokens; those of several sources follow each other. Copies share what is known about the
/// shards, and each has open files and a cache of its own: give every thread its copy.
class ShardSet {
 public:
  /// `glob`: a path or a pattern (data/files/input_paths.h). Throws Error naming the glob without match, or the shard that disagrees about vocab_size, eos_id or
  /// tokenizer.
  explicit ShardSet(const std::string& glob);

  /// Where the shards of a part of the stream are found.
  struct Source {
    std::string name;  // for people; empty: the only one
    std::string glob;
  };
  /// The same for sources one behind the other; also throws where two of them name the same file.
  explicit ShardSet(const std::vector<Source>& sources);
  ShardSet(const ShardSet& other);
  ShardSet& operator=(const ShardSet& other);
  ShardSet(ShardSet&&) noexcept;
  ShardSet& operator=(ShardSet&&) noexcept;
  ~ShardSet();

  struct Shard {
    std::string path;
    std::uint64_t first_token = 0;  // its offset in the stream
    std::uint64_t tokens = 0;
    std::uint64_t documents = 0;
    std::uint64_t text_bytes = 0;
  };

  const std::vector<Shard>& shards() const;

  /// A source's place in the stream and in shards().
  struct Part {
    Source source;
    std::size_t first_shard = 0;
    std::size_t shards = 0;
    std::uint64_t first_token = 0;
    std::uint64_t tokens = 0;
  };
  const std::vector<Part>& parts() const;
  /// One source alone, as a stream that begins at 0.
  ShardSet part(std::size_t number) const;
  /// The pattern, or those of all sources in a line.
  const std::string& glob() const;
  std::int64_t vocab_size() const;
  std::int32_t eos_id() const;  // or no_eos
  const std::string& tokenizer_sha256() const;
  std::uint64_t total_tokens() const;
  std::uint64_t total_documents() const;
  std::uint64_t total_text_bytes() const;
  /// The number of the shard that holds a token of the stream.
  std::size_t shard_of(std::uint64_t token) const;
  /// False where a shard of ids only is among them; then its text_bytes are 0.
  bool text_bytes_known() const;

  /// What tells these shards from others, as 16 hex digits: of each in its order the counts, the hashes of its sources and
  /// its first and last tokens. Not its path: a folder may move.
  std::string fingerprint() const;

  /// Tokens [begin, begin + out.size()) of the stream; throws where that passes the end.
  void read(std::uint64_t begin, std::span<std::int32_t> out);

  struct Document {
    std::uint64_t begin = 0;  // in the stream
    std::uint64_t end = 0;
    std::uint64_t text_bytes = 0;
  };
  /// The documents that have a token in [begin, end) of the stream, in order.
  std::vector<Document> documents(std::uint64_t begin, std::uint64_t end);

  /// Bytes of decoded chunks that read() may keep (default 64 MiB; at least one chunk is kept).
  void set_cache_bytes(std::size_t bytes);

 private:
  struct Index;
  std::shared_ptr<const Index> index_;
  std::unique_ptr<ShardTokenCache> cache_;
};

}  // namespace vqlm
