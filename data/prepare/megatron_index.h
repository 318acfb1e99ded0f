// The documents of Megatron-LM's x.idx, read in pieces: a table of all sequences may be larger than the memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/files/random_access_file.h"
#include "data/prepare/token_arrays.h"

namespace vqlm {

/// A table of little-endian integers in a file, from its first entry to its last.
class TableReader {
 public:
  /// width: 4 or 8 bytes, signed.
  TableReader(const RandomAccessFile& file, std::uint64_t offset, std::uint64_t count, int width);
  std::int64_t next();

 private:
  const RandomAccessFile& file_;
  std::uint64_t offset_;  // of what is not in buffer_
  std::uint64_t left_;    // entries behind the buffer
  int width_;
  std::vector<char> buffer_;
  std::size_t place_ = 0;  // in buffer_
};

class MegatronDocuments {
 public:
  /// The file must outlive this.
  MegatronDocuments(const RandomAccessFile& file, const MegatronIndex& index);

  /// Ids of the next document, which may be 0; nothing behind the last one. Throws Error where the tables do not describe
  /// sequences that fill x.bin one behind the other.
  std::optional<std::uint64_t> next();

 private:
  [[noreturn]] void damaged(const std::string& what) const;

  const RandomAccessFile& file_;
  MegatronIndex index_;
  TableReader lengths_, pointers_, documents_;
  std::uint64_t document_ = 0;  // given out
  std::uint64_t sequence_ = 0;  // of them
  std::uint64_t ids_ = 0;       // of them
};

}  // namespace vqlm
