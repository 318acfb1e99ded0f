#include "core/model/scratch.h"

#include <algorithm>

#include "core/tensor_arena.h"

namespace vqlm {

Scratch::Scratch(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& shape, bool training) {
  const std::int64_t rows = shape.rows();
  const std::int64_t d = config.d_model;
  const std::int64_t p = tensor.size();
  const std::int64_t attention_width = std::int64_t{config.n_heads} * config.head_dim() / p;
  const std::int64_t kv_width = std::int64_t{config.n_kv_heads} * config.head_dim() / p;
  const DType a = tensor.backend().activation_dtype();
  TensorArena arena;
  arena.add(branch, {rows / p, d}, a);
  if (p > 1) {
    arena.add(gathered, {rows, d}, a);
    arena.add(partial, {rows, d}, a);
  }
  if (training) {
    arena.add(residual_gradient, {rows / p, d}, a);
    if (p > 1) arena.add(gathered_gradient, {rows, d}, a);
    arena.add(hidden, {rows, std::max(attention_width, config.d_ff / p)}, a);
    arena.add(qkv_gradient, {rows, attention_width + 2 * kv_width}, a);
    const std::int64_t groups = config.qk_norm == QkNorm::head ? (config.n_heads + config.n_kv_heads) / p : 2;
    if (config.qk_norm != QkNorm::none) arena.add(qk_dots, {rows, groups}, DType::f32);
  }
  storage = arena.allocate(tensor.backend(), MemoryUse::workspace);
}

}  // namespace vqlm
