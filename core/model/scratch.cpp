#include "core/model/scratch.h"

#include <algorithm>

namespace vqlm {

Scratch::Scratch(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& shape,
                 bool training) {
  const std::int64_t rows = shape.rows();
  const std::int64_t d = config.d_model;
  const std::int64_t p = tensor.size();
  const std::int64_t attention_width = std::int64_t{config.n_heads} * config.head_dim() / p;
  const std::int64_t kv_width = std::int64_t{config.n_kv_heads} * config.head_dim() / p;
  struct Want {
    Tensor* tensor;
    std::int64_t rows;
    std::int64_t width;
  };
  const std::int64_t spread = p == 1 ? 0 : rows;
  const std::int64_t trained = training ? rows : 0;
  const Want wants[] = {
      {&branch, rows / p, d},
      {&residual_gradient, training ? rows / p : 0, d},
      {&gathered, spread, d},
      {&gathered_gradient, training ? spread : 0, d},
      {&partial, spread, d},
      {&hidden, trained, std::max(attention_width, config.d_ff / p)},
      {&qkv_gradient, trained, attention_width + 2 * kv_width},
  };
  std::int64_t total = 0;
  for (const Want& want : wants) total += want.rows * want.width;
  storage = tensor.backend().allocate(static_cast<std::size_t>(total) * sizeof(float), MemoryUse::workspace);
  std::int64_t begin = 0;
  for (const Want& want : wants) {
    const std::int64_t count = want.rows * want.width;
    if (count > 0) *want.tensor = storage.view({total}).range(begin, count).view({want.rows, want.width});
    begin += count;
  }
}

}  // namespace vqlm
