#include "data/shards/chunk_decoder.h"

#include <hdf5.h>
#include <libdeflate.h>

#include <algorithm>

#include "core/error.h"

namespace vqlm {

std::uint32_t fletcher32(std::span<const std::uint8_t> bytes) {
  std::uint64_t sum1 = 0;
  std::uint64_t sum2 = 0;
  // 64-bit sums hold 2^20 words before they must be reduced: 2^20 * 2^20 / 2 words' worth of 65,535 is below 2^56.
  constexpr std::size_t words_at_once = std::size_t{1} << 20;
  const std::size_t words = bytes.size() / 2;
  for (std::size_t begin = 0; begin < words; begin += words_at_once) {
    const std::size_t end = std::min(begin + words_at_once, words);
    for (std::size_t i = begin; i < end; ++i) {
      sum1 += static_cast<std::uint64_t>(bytes[2 * i] << 8 | bytes[2 * i + 1]);
      sum2 += sum1;
    }
    sum1 %= 65535;
    sum2 %= 65535;
  }
  if (bytes.size() % 2 != 0) {
    sum1 += static_cast<std::uint64_t>(bytes.back()) << 8;
    sum2 += sum1;
  }
  sum1 %= 65535;
  sum2 %= 65535;
  return static_cast<std::uint32_t>(sum2 << 16 | sum1);
}

ChunkDecoder::ChunkDecoder(const std::vector<int>& filters) {
  shuffled_ = !filters.empty() && filters.front() == H5Z_FILTER_SHUFFLE;
  const std::vector<int> rest(filters.begin() + (shuffled_ ? 1 : 0), filters.end());
  supported_ = rest == std::vector<int>{H5Z_FILTER_DEFLATE, H5Z_FILTER_FLETCHER32};
  if (supported_) {
    inflate_.reset(libdeflate_alloc_decompressor());
    if (!inflate_) throw Error("out of memory for a decompressor");
  }
}

void ChunkDecoder::Release::operator()(libdeflate_decompressor* decompressor) const {
  libdeflate_free_decompressor(decompressor);
}

bool ChunkDecoder::decode(std::span<const std::uint8_t> stored, std::span<std::uint8_t> out, std::size_t element_size) {
  VQLM_ASSERT(supported_);
  if (stored.size() < 4) return false;
  const auto data = stored.first(stored.size() - 4);
  const auto checksum = stored.last(4);  // little-endian
  const std::uint32_t expected = std::uint32_t{checksum[0]} | std::uint32_t{checksum[1]} << 8 |
                                 std::uint32_t{checksum[2]} << 16 | std::uint32_t{checksum[3]} << 24;
  const std::uint32_t computed = fletcher32(data);
  // A sum of 65,535 and one of 0 are the same modulo 65,535; HDF5 stores the former.
  const auto canonical = [](std::uint32_t sums) { return (sums >> 16) % 65535 << 16 | (sums & 0xffff) % 65535; };
  if (canonical(computed) != canonical(expected)) return false;

  std::uint8_t* target = out.data();
  if (shuffled_) {
    unshuffled_.resize(out.size());
    target = unshuffled_.data();
  }
  std::size_t length = 0;
  if (libdeflate_zlib_decompress(inflate_.get(), data.data(), data.size(), target, out.size(), &length) !=
          LIBDEFLATE_SUCCESS ||
      length != out.size()) {
    return false;
  }
  if (shuffled_) {
    const std::size_t n = out.size() / element_size;
    for (std::size_t byte = 0; byte < element_size; ++byte) {
      const std::uint8_t* plane = unshuffled_.data() + byte * n;
      for (std::size_t i = 0; i < n; ++i) out[i * element_size + byte] = plane[i];
    }
  }
  return true;
}

}  // namespace vqlm
