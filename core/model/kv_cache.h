// Keys and values of all tokens so far, so that a new token costs one row of every layer.
#pragma once

#include <vector>

#include "core/backend.h"
#include "core/model_config.h"

namespace vqlm {

/// One layer's cache as AttentionLayer sees it, and how far it is filled.
struct CachedLayer {
  Tensor keys, values;    // (B, kv_heads, capacity, head_dim) A
  std::int64_t past = 0;  // positions that are there
  Tensor documents = {};  // (2, B, capacity) i32, where model.document_end is
};

class KvCache {
 public:
  /// Room for B sequences of `capacity` tokens: 2 layers B kv_heads head_dim capacity numbers.
  KvCache(Backend& backend, const ModelConfig& config, std::int64_t batch, std::int64_t capacity);

  std::int64_t capacity() const { return capacity_; }
  CachedLayer layer(std::size_t index, std::int64_t past) const {
    return {layers_[index].keys, layers_[index].values, past, {}};
  }

 private:
  std::int64_t capacity_;
  std::vector<CachedLayer> layers_;
  Buffer storage_;
};

}  // namespace vqlm
