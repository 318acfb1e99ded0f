// Token shards: HDF5 files of tokenized documents. shard_set.h reads several as one stream.
//
//   /tokens     uint16 (vocab_size <= 65,536) or uint32 (M), chunked, deflate, Fletcher-32
//   /documents  uint64 (D + 1): document i is tokens [documents[i], documents[i + 1]), end-of-text included
//   /bytes      uint64 (D): UTF-8 bytes of each document's text (for bits per byte); absent where only ids were known
//   /records    uint64 (D): which record of its source each document was, from 0; absent in shards of earlier versions
//   attributes  format = "vqlm-tokens", version, vocab_size, eos_id, tokenizer_sha256, document_count,
//               token_count, text_bytes (absent with /bytes), sources (JSON list of {path, bytes, sha256})
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5/h5.h"
#include "data/shards/chunk_decoder.h"

namespace vqlm {

constexpr const char* shard_format = "vqlm-tokens";
constexpr std::int64_t shard_version = 1;
/// eos_id of shards that no id marks the ends of documents in.
constexpr std::int32_t no_eos = -1;

/// A file that a shard's text came from.
struct SourceFile {
  std::string path;
  std::uint64_t bytes = 0;
  std::string sha256;  // of the file as it lies on disk, lower-case hex

  bool operator==(const SourceFile&) const = default;
};

/// The facts that a shard states about itself.
struct ShardMeta {
  std::int64_t vocab_size = 0;
  std::int32_t eos_id = 0;       // or no_eos
  std::string tokenizer_sha256;  // "" where the tokenizer is not known
  std::vector<SourceFile> sources;
  bool text_bytes_known = true;
};

/// Returns the type in which tokens are stored: u16 where every id of the vocabulary fits, else u32.
h5::Type token_storage_type(std::int64_t vocab_size);

/// Writes one shard: to PATH.partial, which finish() makes durable and renames. Without finish() the
/// destructor removes the partial file. A full disk and the like throw Error naming the file.
class ShardWriter {
 public:
  /// Throws where vocab_size is below 1 or eos_id outside the vocabulary and not no_eos.
  ShardWriter(std::string path, ShardMeta meta);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  /// One document: its tokens with the closing end-of-text token, and the bytes of its text in UTF-8 (0 where they are
  /// not known). record: its number in the only source, where it is known; for all documents or for none. Throws Error for
  /// a token outside the vocabulary.
  void add_document(std::span<const std::uint32_t> tokens, std::uint64_t text_bytes,
                    std::optional<std::uint64_t> record = std::nullopt);

  std::uint64_t documents() const { return bytes_.size(); }
  std::uint64_t tokens() const { return documents_.back(); }
  std::uint64_t text_bytes() const { return text_bytes_; }

  /// Replaces the sources given at the start; hashes are often known only after the text was read.
  void set_sources(std::vector<SourceFile> sources) { meta_.sources = std::move(sources); }

  /// Writes the rest, then fsync of the file, rename to the final name and fsync of the folder.
  void finish();

 private:
  void write_tokens(std::span<const std::uint32_t> tokens);
  void write_tables();

  std::string path_;
  std::string partial_path_;
  ShardMeta meta_;
  std::optional<h5::File> file_;
  std::optional<h5::Dataset> tokens_;
  std::vector<std::uint32_t> pending_;    // tokens not yet written, less than one write unit
  std::uint64_t written_ = 0;             // tokens in the file
  std::vector<std::uint64_t> documents_;  // (D + 1)
  std::vector<std::uint64_t> bytes_;      // (D)
  std::vector<std::uint64_t> records_;    // (D) or none
  std::uint64_t text_bytes_ = 0;
};

/// One open shard. The constructor checks format, version, types and that the sizes agree; tokens and offsets
/// are checked when they are read. Every Error names the file and the way out (`vqlm prepare` rebuilds
/// damaged shards).
class ShardReader {
 public:
  explicit ShardReader(std::string path);

  const std::string& path() const { return path_; }
  const ShardMeta& meta() const { return meta_; }
  std::uint64_t tokens() const { return token_count_; }
  std::uint64_t document_count() const { return document_count_; }
  /// Returns 0 where meta().text_bytes_known is false.
  std::uint64_t text_bytes() const { return text_bytes_; }
  /// Tokens in a chunk of /tokens.
  std::uint64_t chunk_tokens() const { return chunk_tokens_; }

  /// Tokens [begin, begin + out.size()) of this shard, each checked to lie in the vocabulary.
  void read_tokens(std::uint64_t begin, std::span<std::int32_t> out);
  /// A decoded chunk of /tokens, in the width of the shard: the unit that ShardSet caches.
  struct Chunk {
    std::vector<std::uint16_t> narrow;
    std::vector<std::uint32_t> wide;

    std::size_t size() const { return narrow.empty() ? wide.size() : narrow.size(); }
    std::size_t bytes() const { return narrow.size() * 2 + wide.size() * 4; }
    /// Tokens [begin, begin + out.size()) of the chunk.
    void copy(std::size_t begin, std::span<std::int32_t> out) const;
  };
  /// Chunk `number` (the last one may be short), each token checked to lie in the vocabulary.
  void read_chunk(std::uint64_t number, Chunk& chunk);

  /// (D + 1) offsets, checked to start at 0, to rise and to end at tokens().
  std::vector<std::uint64_t> documents() const;
  /// (D) bytes of text, all 0 where they are not known.
  std::vector<std::uint64_t> bytes() const;
  /// (D) numbers of the records of meta().sources' only file; empty where they are not known.
  std::vector<std::uint64_t> records() const;
  /// Reads every token, offset, byte count and record number: throws for any damage. For `vqlm prepare`'s check of finished
  /// shards.
  void verify();

 private:
  void read_header();
  void check_sizes();
  template <class T>
  bool decode_chunk(std::uint64_t begin, std::vector<T>& values);

  std::string path_;
  ShardMeta meta_;
  std::optional<h5::File> file_;
  std::optional<h5::Dataset> tokens_;
  std::uint64_t token_count_ = 0;
  std::uint64_t document_count_ = 0;
  std::uint64_t text_bytes_ = 0;
  std::uint64_t chunk_tokens_ = 0;
  std::optional<ChunkDecoder> decoder_;
  std::vector<std::uint8_t> raw_;  // scratch of decode_chunk
};

}  // namespace vqlm
