#include "data/shards/permutation.h"

#include <cmath>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {
namespace {

// Luby and Rackoff need 4 rounds for a permutation that is hard to tell from a random one; small domains want more.
constexpr std::uint32_t round_pairs = 4;

}  // namespace

Permutation::Permutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch)
    : n_(n), a_(static_cast<std::uint64_t>(std::sqrt(static_cast<double>(n)))), seed_(seed), epoch_(epoch) {
  VQLM_ASSERT(n >= 1 && n < (std::uint64_t{1} << 62));
  while (a_ * a_ < n) ++a_;
  b_ = (n + a_ - 1) / a_;
}

std::uint64_t Permutation::operator()(std::uint64_t i) const {
  VQLM_ASSERT(i < n_);
  do {
    i = encrypt(i);
  } while (i >= n_);
  return i;
}

std::uint64_t Permutation::inverse(std::uint64_t value) const {
  VQLM_ASSERT(value < n_);
  do {
    value = decrypt(value);
  } while (value >= n_);
  return value;
}

std::uint64_t Permutation::encrypt(std::uint64_t x) const {
  std::uint64_t left = x / b_;
  std::uint64_t right = x % b_;
  for (std::uint32_t pair = 0; pair < round_pairs; ++pair) {
    left = (left + round_value(2 * pair, right)) % a_;
    right = (right + round_value(2 * pair + 1, left)) % b_;
  }
  return left * b_ + right;
}

std::uint64_t Permutation::decrypt(std::uint64_t x) const {
  std::uint64_t left = x / b_;
  std::uint64_t right = x % b_;
  for (std::uint32_t pair = round_pairs; pair-- > 0;) {
    right = (right + b_ - round_value(2 * pair + 1, left) % b_) % b_;
    left = (left + a_ - round_value(2 * pair, right) % a_) % a_;
  }
  return left * b_ + right;
}

std::uint64_t Permutation::round_value(std::uint32_t round, std::uint64_t half) const {
  // Counter: the half (below 2^31, since n < 2^62), the round and the epoch. 62 bits against an extent below 2^31: the
  // bias of the remainder is below 2^-31.
  const auto block = philox4x32({static_cast<std::uint32_t>(half), round, static_cast<std::uint32_t>(epoch_),
                                 static_cast<std::uint32_t>(epoch_ >> 32)},
                                {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  return ((std::uint64_t{block[1]} << 32) | block[0]) >> 2;
}

}  // namespace vqlm
