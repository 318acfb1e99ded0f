// The fingerprint of a tensor's bits: exact integer sums, so threads may add in any order.
#include <numeric>
#include <type_traits>
#include <vector>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm::cpu {
namespace {

constexpr std::uint64_t golden64 = 0x9e3779b97f4a7c15;

std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

template <class Bits>
std::uint64_t sum_of_mixed(Tensor x) {
  static_assert(std::is_unsigned_v<Bits>);
  const std::int64_t n = x.numel();
  const auto* const bits = static_cast<const Bits*>(x.data());
  std::vector<std::uint64_t> partial(static_cast<std::size_t>((n + block_elements - 1) / block_elements));
  parallel_blocks(n, block_elements, [&](std::int64_t begin, std::int64_t end) {
    std::uint64_t sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += mix64(bits[i] + (static_cast<std::uint64_t>(i) + 1) * golden64);
    partial[static_cast<std::size_t>(begin / block_elements)] = sum;
  });
  return std::accumulate(partial.begin(), partial.end(), std::uint64_t{0});
}

}  // namespace

std::uint64_t fingerprint(Tensor x) {
  VQLM_ASSERT(x.dtype() == DType::f32 || x.dtype() == DType::bf16);
  return x.dtype() == DType::f32 ? sum_of_mixed<std::uint32_t>(x) : sum_of_mixed<std::uint16_t>(x);
}

}  // namespace vqlm::cpu
