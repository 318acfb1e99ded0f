// A keyed random permutation of [0, n) in O(1) memory: the order of samples of one epoch.
#pragma once

#include <cstdint>

namespace vqlm {

/// A Feistel network over pairs (left, right) in [0, a) x [0, b) with a = ceil(sqrt(n)), b = ceil(n / a), whose round
/// function is Philox keyed by seed and epoch. Values that fall on [n, a * b) are walked on until they are below n
/// ("cycle walking": Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002): fewer than
/// 1 + 1 / sqrt(n) rounds of the network on average, because a * b < n + a.
class Permutation {
 public:
  /// n >= 1.
  Permutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch);

  /// pi(i) for i < n.
  std::uint64_t operator()(std::uint64_t i) const;

  /// The i with pi(i) = value, for value < n.
  std::uint64_t inverse(std::uint64_t value) const;

  std::uint64_t size() const { return n_; }

 private:
  std::uint64_t encrypt(std::uint64_t x) const;
  std::uint64_t decrypt(std::uint64_t x) const;
  std::uint64_t round_value(std::uint32_t round, std::uint64_t half) const;

  std::uint64_t n_;
  std::uint64_t a_;  // extent of the left half
  std::uint64_t b_;  // extent of the right half
  std::uint64_t seed_;
  std::uint64_t epoch_;
};

}  // namespace vqlm
