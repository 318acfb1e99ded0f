#include <bit>
#include <utility>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

constexpr std::uint64_t golden64 = 0x9e3779b97f4a7c15;

std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// The contract's sum, element by element from the last to the first.
template <class Bits>
std::uint64_t reference(const std::vector<Bits>& bits) {
  std::uint64_t sum = 0;
  for (std::size_t i = bits.size(); i > 0; --i) sum += mix64(bits[i - 1] + i * golden64);
  return sum;
}

template <class Bits>
std::vector<Bits> random_bits(std::int64_t n) {
  const Philox rng(1234, "bits");
  std::vector<Bits> bits(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<Bits>(rng.below(i, 1ull << 32));
  return bits;
}

template <class Bits>
Tensor tensor_of(std::vector<Bits>& bits) {
  const auto n = static_cast<std::int64_t>(bits.size());
  return Tensor(bits.data(), sizeof(Bits) == 4 ? DType::f32 : DType::bf16, {n});
}

template <class Bits>
class FingerprintTest : public OpTest {};
using Widths = ::testing::Types<std::uint32_t, std::uint16_t>;
TYPED_TEST_SUITE(FingerprintTest, Widths);

TEST(Mix64, IsSplitMix64s) {
  // The first numbers of SplitMix64 seeded with 0, as published with it (prng.di.unimi.it/splitmix64.c).
  EXPECT_EQ(mix64(golden64), 0xe220a8397b1dcdafu);
  EXPECT_EQ(mix64(2 * golden64), 0x6e789e6aa1b965f4u);
}

// Over any number of elements, on any number of threads; blocks have 16 Ki elements.
TYPED_TEST(FingerprintTest, EqualsTheReferenceOnAnyNumberOfThreads) {
  const auto three = make_cpu_backend(3);
  for (const std::int64_t n : {0, 1, 2, 17, 16'384, 16'385, 100'003}) {
    auto bits = random_bits<TypeParam>(n);
    EXPECT_EQ(this->backend->fingerprint(tensor_of(bits)), reference(bits)) << n;
    EXPECT_EQ(three->fingerprint(tensor_of(bits)), reference(bits)) << n;
  }
}

TYPED_TEST(FingerprintTest, AnyBitAndAnyExchangeChangesIt) {
  constexpr std::size_t n = 301;
  auto bits = random_bits<TypeParam>(n);
  const std::uint64_t expected = this->backend->fingerprint(tensor_of(bits));
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t bit = 0; bit < 8 * sizeof(TypeParam); ++bit) {
      const auto mask = static_cast<TypeParam>(TypeParam{1} << bit);
      bits[i] = static_cast<TypeParam>(bits[i] ^ mask);
      EXPECT_NE(this->backend->fingerprint(tensor_of(bits)), expected) << "element " << i << ", bit " << bit;
      bits[i] = static_cast<TypeParam>(bits[i] ^ mask);
    }
    for (std::size_t j = 0; j < i; j += 7) {
      if (bits[i] == bits[j]) continue;
      std::swap(bits[i], bits[j]);
      EXPECT_NE(this->backend->fingerprint(tensor_of(bits)), expected) << i << " and " << j;
      std::swap(bits[i], bits[j]);
    }
  }
  EXPECT_EQ(this->backend->fingerprint(tensor_of(bits)), expected);
}

TYPED_TEST(FingerprintTest, ZerosOfDifferentLengthsDiffer) {
  std::vector<TypeParam> zeros(20, 0);
  std::vector<TypeParam> more(21, 0);
  EXPECT_NE(this->backend->fingerprint(tensor_of(zeros)), this->backend->fingerprint(tensor_of(more)));
}

}  // namespace
}  // namespace vqlm::testing
