// Files of token ids that other programs wrote, one document at a time and in constant memory:
//
//   NumPy         x.npy, format 1 to 3, one axis of little-endian integers
//   llm.c         x.bin: 256 int32 (magic, version, count, 0...), then uint16 (20240520, 1) or uint32 (20240801, 7)
//   Megatron-LM   x.bin with x.idx beside it: "MMIDIDX\0\0", uint64 version 1, uint8 code of the type, uint64 sequences,
//                 uint64 entries of the document index; then int32 lengths and int64 pointers (bytes into x.bin) of the
//                 sequences, and the int64 document index: document i is sequences [index[i], index[i + 1])
//   raw ids       without any header, of a type that the user tells: OLMo's .npy, nanoGPT's .bin
//
// Headers are read strictly: what they tell must give the size of the file to the byte.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// An array of ids in a file: where they lie and how they are stored, as little-endian integers.
struct TokenArray {
  std::uint64_t offset = 0;  // bytes
  std::uint64_t count = 0;   // ids
  int width = 0;             // bytes of an id: 1, 2, 4 or 8
  bool is_signed = false;
};

/// The first word of llm.c's files says how ids are stored.
constexpr std::int32_t llmc_magic_u16 = 20240520;
constexpr std::int32_t llmc_magic_u32 = 20240801;

/// Longest header that is read; NumPy's of one axis have 128 bytes.
constexpr std::size_t max_token_header_bytes = std::size_t{1} << 16;

/// `head`: the first bytes of the file, at most max_token_header_bytes; `file_bytes`: its size; `name` is for messages.
/// Each throws Error that says what is wrong with the header and how to write a file that can be read.
TokenArray parse_npy_header(std::string_view head, std::uint64_t file_bytes, const std::string& name);
TokenArray parse_llmc_header(std::string_view head, std::uint64_t file_bytes, const std::string& name);

/// The ids of a file without a header; `dtype` as NumPy names it: uint8, uint16, uint32, uint64, int16, int32 or int64. Throws
/// UsageError for another type, Error for a file that begins with a header or ends within an id.
TokenArray raw_token_array(std::string_view head, std::uint64_t file_bytes, const std::string& dtype,
                           const std::string& name);

struct MegatronIndex {
  TokenArray ids;               // of x.bin
  std::uint64_t sequences = 0;  // entries of the tables of lengths and pointers
  std::uint64_t documents = 0;  // one less than the entries of the document index
  std::uint64_t lengths_offset = 0, pointers_offset = 0, documents_offset = 0;  // bytes into x.idx
};
/// `head` and `index_bytes` are of x.idx, `data_bytes` is the size of x.bin.
MegatronIndex parse_megatron_header(std::string_view head, std::uint64_t index_bytes, std::uint64_t data_bytes,
                                    const std::string& name);

/// The path of x.idx where `path` is x.bin and both are there: Megatron-LM's pair. Else "".
std::string megatron_index_beside(const std::string& path);

/// The documents of one file: Megatron-LM's own; else what ends with `eos_id`, that id included; else, where none is
/// given, every ids_without_ends ids.
class TokenDocuments {
 public:
  /// So many ids count as a document where ends are unknown, so that some can be held out.
  static constexpr std::uint64_t ids_without_ends = 64 * 1024;
  /// A longer document is cut there, so that 64 MiB are in memory at a time: the same limit as of a text record.
  static constexpr std::uint64_t most_ids = 16 * 1024 * 1024;

  /// Throws Error for a file that cannot be read or is none of the kinds above. vocab_size: at most 2^31. dtype: of raw ids,
  /// else "".
  TokenDocuments(const std::string& path, std::int64_t vocab_size, std::optional<std::uint32_t> eos_id,
                 const std::string& dtype = "");
  ~TokenDocuments();
  TokenDocuments(TokenDocuments&&) noexcept;

  /// Replaces `ids` with the next document's, none of them empty; false behind the last one. Throws Error naming the
  /// place of an id outside [0, vocab_size).
  bool next(std::vector<std::uint32_t>& ids);
  std::uint64_t file_bytes_read() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqlm
