// The shards of a split as one stream of tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shards/token_shards.h"

namespace vqlm {

class ShardTokenCache;

/// The shards of a split, in name order, as one stream of tokens. Copies share what is known about the
/// shards, and each has open files and a cache of its own: give every thread its copy.
class ShardSet {
 public:
  /// `glob`: a path or a pattern (data/files/input_paths.h). Throws Error naming the glob without match, or the shard that disagrees about vocab_size, eos_id or
  /// tokenizer.
  explicit ShardSet(const std::string& glob);
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
  const std::string& glob() const;
  std::int64_t vocab_size() const;
  std::int32_t eos_id() const;  // or no_eos
  const std::string& tokenizer_sha256() const;
  std::uint64_t total_tokens() const;
  std::uint64_t total_documents() const;
  std::uint64_t total_text_bytes() const;
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
