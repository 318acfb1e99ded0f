// Undoes the filters of a stored chunk. HDF5's own way through zlib decodes half as fast as libdeflate, and decoding
// is what limits reading in random order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

struct libdeflate_decompressor;

namespace vqlm {

/// HDF5's Fletcher-32 (its file format specification, "Fletcher32 filter"): two sums modulo 65,535 of big-endian 16-bit
/// words.
std::uint32_t fletcher32(std::span<const std::uint8_t> bytes);

/// Decodes chunks that went through [shuffle,] deflate, Fletcher-32 in this order.
class ChunkDecoder {
 public:
  /// Filters by HDF5's numbers in the order of writing.
  explicit ChunkDecoder(const std::vector<int>& filters);

  /// False where the pipeline is another one: then HDF5 has to read.
  bool supported() const { return supported_; }

  /// Fills `out` (elements of element_size bytes) from the stored bytes. False where the checksum or the length is
  /// wrong; out is then undefined.
  bool decode(std::span<const std::uint8_t> stored, std::span<std::uint8_t> out, std::size_t element_size);

 private:
  struct Release {
    void operator()(libdeflate_decompressor* decompressor) const;
  };

  bool supported_ = false;
  bool shuffled_ = false;
  std::unique_ptr<libdeflate_decompressor, Release> inflate_;
  std::vector<std::uint8_t> unshuffled_;  // scratch
};

}  // namespace vqlm
