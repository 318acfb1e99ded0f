// A file that is read at any place.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace vqlm {

class RandomAccessFile {
 public:
  /// Throws Error for a file that cannot be opened or is no plain file.
  explicit RandomAccessFile(const std::string& path);
  RandomAccessFile(const RandomAccessFile&) = delete;
  RandomAccessFile& operator=(const RandomAccessFile&) = delete;
  ~RandomAccessFile();

  const std::string& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_; }  // when it was opened
  /// Fills `out` with the bytes from `offset` on. Throws Error where the file ends before.
  void read(std::uint64_t offset, std::span<char> out) const;
  /// The first bytes, at most `most`.
  std::string head(std::size_t most) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

}  // namespace vqlm
