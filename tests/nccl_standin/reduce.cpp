#include "tests/nccl_standin/reduce.h"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace nccl_standin {
namespace {

struct Bf16 {
  std::uint16_t bits;
};

float widen(Bf16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}
Bf16 narrow(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};  // to nearest even
}

template <class T>
T load(const void* block, std::size_t i) {
  return static_cast<const T*>(block)[i];
}

template <class T>
void reduce_typed(void* out, const std::vector<const void*>& blocks, std::size_t n, ncclRedOp_t op) {
  for (std::size_t i = 0; i < n; ++i) {
    T result = load<T>(blocks[0], i);
    for (std::size_t p = 1; p < blocks.size(); ++p) {
      const T x = load<T>(blocks[p], i);
      result = op == ncclSum ? static_cast<T>(result + x) : std::max(result, x);
    }
    static_cast<T*>(out)[i] = result;
  }
}

void sum_bf16(void* out, const std::vector<const void*>& blocks, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    float sum = 0;
    for (const void* block : blocks) sum += widen(load<Bf16>(block, i));
    static_cast<Bf16*>(out)[i] = narrow(sum);
  }
}

}  // namespace

bool can_reduce(ncclDataType_t dtype, ncclRedOp_t op) {
  if (dtype == ncclBfloat16) return op == ncclSum;
  return (dtype == ncclFloat32 || dtype == ncclFloat64 || dtype == ncclInt32) && (op == ncclSum || op == ncclMax);
}

void reduce(void* out, const std::vector<const void*>& blocks, std::size_t n, ncclDataType_t dtype, ncclRedOp_t op) {
  if (dtype == ncclFloat32) reduce_typed<float>(out, blocks, n, op);
  if (dtype == ncclFloat64) reduce_typed<double>(out, blocks, n, op);
  if (dtype == ncclInt32) reduce_typed<std::int32_t>(out, blocks, n, op);
  if (dtype == ncclBfloat16) sum_bf16(out, blocks, n);
}

}  // namespace nccl_standin
