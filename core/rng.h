// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A number is a pure function of (seed, stream, index), so every process grid draws the same ones and nothing needs
// to be saved to resume.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace vqlm {

/// The Philox4x32-10 block: 128 random bits from a 128-bit counter and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// 64-bit FNV-1a of a name: the stream of a logical tensor.
constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// Random access to one stream of numbers.
class Philox {
 public:
  Philox(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  Philox(std::uint64_t seed, std::string_view name) : Philox(seed, stream_of(name)) {}

  /// 64 random bits for `index`.
  std::uint64_t bits(std::uint64_t index) const {
    const auto x = block(index);
    return (std::uint64_t{x[1]} << 32) | x[0];
  }
  /// Uniform in [0, 1), 24 bits.
  float uniform(std::uint64_t index) const { return static_cast<float>(block(index)[0] >> 8) * 0x1p-24f; }
  /// Uniform integer in [0, bound) (multiply-shift; bias below 2^-32 for bounds below 2^32).
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const {
    __extension__ typedef unsigned __int128 Wide;
    return static_cast<std::uint64_t>((static_cast<Wide>(bits(index)) * bound) >> 64);
  }
  /// Standard normal (Box-Muller on two 24-bit uniforms).
  float normal(std::uint64_t index) const {
    const auto x = block(index);
    const float u = (static_cast<float>(x[0] >> 8) + 1.0f) * 0x1p-24f;  // (0, 1]
    const float v = static_cast<float>(x[1] >> 8) * 0x1p-24f;
    return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318530717958647f * v);
  }

 private:
  std::array<std::uint32_t, 4> block(std::uint64_t index) const {
    return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                       static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                      {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  }

  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace vqlm
