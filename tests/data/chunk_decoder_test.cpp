#include "data/shards/chunk_decoder.h"

#include <gtest/gtest.h>

#include "core/rng.h"
#include "data/hdf5/h5.h"
#include "tests/data/temporary_folder.h"

namespace vqlm {
namespace {

/// The stored bytes of a chunk that HDF5 wrote, and its filters.
struct Stored {
  std::vector<int> filters;
  std::vector<std::uint8_t> bytes;
};

template <class T>
Stored stored_chunk(const TemporaryFolder& folder, const std::vector<T>& values, bool shuffle) {
  h5::File file = h5::File::create(folder.file("chunk.h5"));
  h5::Dataset dataset =
      file.create_dataset("x", h5::type_of<T>(), {values.size()},
                          {.chunk = {values.size()}, .deflate = 4, .shuffle = shuffle, .fletcher32 = true});
  dataset.write_all<T>(values);
  file.flush();
  Stored stored{dataset.filters(), {}};
  dataset.close();
  dataset = file.dataset("x");
  dataset.read_raw_chunk(stored.bytes, {0});
  return stored;
}

template <class T>
std::vector<T> skewed_values(std::size_t n) {
  const Philox rng(n, "values");
  std::vector<T> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<T>(rng.below(i, rng.below(n + i, 60'000) + 1));
  return values;
}

template <class T>
class ChunkDecoders : public testing::Test {};
using TokenTypes = testing::Types<std::uint16_t, std::uint32_t>;
TYPED_TEST_SUITE(ChunkDecoders, TokenTypes);

TYPED_TEST(ChunkDecoders, DecodeWhatHdf5Wrote) {
  const TemporaryFolder folder;
  for (const std::size_t n : {1, 2, 3, 100, 4095, 70'000}) {  // odd and even lengths of the compressed bytes among them
    for (const bool shuffle : {false, true}) {
      const auto values = skewed_values<TypeParam>(n);
      const Stored stored = stored_chunk(folder, values, shuffle);
      ChunkDecoder decoder(stored.filters);
      ASSERT_TRUE(decoder.supported());
      std::vector<TypeParam> decoded(n);
      const std::span out(reinterpret_cast<std::uint8_t*>(decoded.data()), n * sizeof(TypeParam));
      ASSERT_TRUE(decoder.decode(stored.bytes, out, sizeof(TypeParam))) << n;
      EXPECT_EQ(decoded, values);
    }
  }
}

TEST(ChunkDecoder, RefusesEveryFlippedBitAndWrongLengths) {
  const TemporaryFolder folder;
  const auto values = skewed_values<std::uint16_t>(60);
  const Stored stored = stored_chunk(folder, values, false);
  ChunkDecoder decoder(stored.filters);
  std::vector<std::uint8_t> out(120);
  for (std::size_t bit = 0; bit < 8 * stored.bytes.size(); ++bit) {
    auto damaged = stored.bytes;
    damaged[bit / 8] = static_cast<std::uint8_t>(damaged[bit / 8] ^ (1u << (bit % 8)));
    EXPECT_FALSE(decoder.decode(damaged, out, 2)) << "bit " << bit;
  }
  for (std::size_t kept = 0; kept < stored.bytes.size(); ++kept) {
    EXPECT_FALSE(decoder.decode(std::span(stored.bytes).first(kept), out, 2)) << kept << " bytes kept";
  }
  EXPECT_TRUE(decoder.decode(stored.bytes, out, 2));
  out.resize(118);
  EXPECT_FALSE(decoder.decode(stored.bytes, out, 2));
  out.resize(122);
  EXPECT_FALSE(decoder.decode(stored.bytes, out, 2));
}

TEST(ChunkDecoder, LeavesOtherPipelinesToHdf5) {
  EXPECT_FALSE(ChunkDecoder({}).supported());
  EXPECT_FALSE(ChunkDecoder({1}).supported());           // deflate alone: nothing to check the bytes by
  EXPECT_FALSE(ChunkDecoder({3, 1}).supported());        // the checksum before deflate
  EXPECT_FALSE(ChunkDecoder({2, 2, 1, 3}).supported());  // shuffled twice
}

TEST(ChunkDecoder, FletcherSumsAreReducedBeforeTheyOverflow) {
  // All words 65,535 = 0 modulo 65,535; one 1 at the end adds 1 to both sums.
  std::vector<std::uint8_t> bytes(std::size_t{6} << 20, 0xff);
  EXPECT_EQ(fletcher32(bytes), 0u);
  bytes[bytes.size() - 2] = 0;
  bytes[bytes.size() - 1] = 1;
  EXPECT_EQ(fletcher32(bytes), 0x00010001u);
}

}  // namespace
}  // namespace vqlm
