#include "core/model/kv_cache.h"

#include "core/tensor_arena.h"

namespace vqlm {

KvCache::KvCache(Backend& backend, const ModelConfig& config, std::int64_t batch, std::int64_t capacity)
    : capacity_(capacity), layers_(static_cast<std::size_t>(config.n_layers)) {
  TensorArena arena;
  for (CachedLayer& layer : layers_) {
    for (Tensor* tensor : {&layer.keys, &layer.values}) {
      arena.add(*tensor, {batch, config.n_kv_heads, capacity, config.head_dim()}, backend.activation_dtype());
    }
  }
  storage_ = arena.allocate(backend, MemoryUse::activations);
}

}  // namespace vqlm
