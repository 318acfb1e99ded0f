// Attention; on a device of capability 9.0 that is other kernels, for head widths 64 and 128.
#include "tests/core/attention_documents.h"
#include "tests/cuda/accesses/access_case.h"

namespace vqlm::testing {
namespace {

using AttentionCaseOfAccesses = AccessCase;

TEST_F(AttentionCaseOfAccesses, WholeSequences) {
  for (const int head_dim : {64, 128, 32}) {
    for (const bool cut : {false, true}) {
      const AttentionShape shape{.batch = 1, .seq_len = 256, .heads = 2, .kv_heads = 1, .head_dim = head_dim};
      const std::int64_t width = std::int64_t{shape.heads} * head_dim;
      const Tensor qkv = activations({1, shape.seq_len, shape.row()}),
                   out = room({1, shape.seq_len, width}, DType::bf16),
                   lse = room({1, shape.heads, shape.seq_len}, DType::f32),
                   documents = cut ? copy_of(random_documents(shape)) : Tensor{};
      device->run(AttentionForward{.out = out, .lse = lse, .qkv = qkv, .shape = shape, .documents = documents});
      device->run(AttentionBackward{.dqkv = room({1, shape.seq_len, shape.row()}, DType::bf16),
                                    .dout = activations({1, shape.seq_len, width}),
                                    .out = out,
                                    .lse = lse,
                                    .qkv = qkv,
                                    .shape = shape,
                                    .documents = documents});
    }
  }
}

TEST_F(AttentionCaseOfAccesses, Generation) {
  constexpr std::int64_t capacity = 320;
  for (const int head_dim : {64, 128, 32}) {
    for (const int kv_heads : {1, 4}) {
      const Shape cache{1, kv_heads, capacity, head_dim};
      const Tensor keys = activations(cache), values = activations(cache);
      for (const auto& [past, length] : {std::pair<std::int64_t, std::int64_t>{0, 64}, {64, 8}, {300, 1}}) {
        const AttentionShape shape{
            .batch = 1, .seq_len = length, .heads = 4, .kv_heads = kv_heads, .head_dim = head_dim};
        device->run(AttentionCached{.out = room({1, length, 4 * head_dim}, DType::bf16),
                                    .keys = keys,
                                    .values = values,
                                    .qkv = activations({1, length, shape.row()}),
                                    .shape = shape,
                                    .past = past});
      }
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
