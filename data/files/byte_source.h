// The bytes of a file as they were before compression: plain, gzip (RFC 1952, several members in a row too)
// or Zstandard (RFC 8878, several frames in a row too).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace vqlm {

class ByteSource {
 public:
  virtual ~ByteSource() = default;

  /// Fills the front of `out` and returns the number of bytes, at least one; 0 at the end of the text. Throws
  /// Error naming the file, the place and the way out for unreadable, damaged or cut off files.
  virtual std::size_t read(std::span<char> out) = 0;
  /// Bytes of the file as it lies on disk that were read so far (for progress).
  virtual std::uint64_t file_bytes_read() const = 0;
};

/// Compression is told by the first bytes of the file, and a file named .gz or .zst must begin as such.
/// Throws Error for a file that cannot be opened, a folder, or a name that promises what the bytes are not.
std::unique_ptr<ByteSource> open_byte_source(const std::string& path);

}  // namespace vqlm
