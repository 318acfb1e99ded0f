// Temporary memory that all layers share: what does not live from forward to backward.
#pragma once

#include "core/model/batch_shape.h"
#include "core/model_config.h"
#include "core/tensor_parallel.h"

namespace vqlm {

/// N rows of the micro-batch, n = N / P of them here. Tensors that only tensor parallelism needs are absent
/// at P = 1.
struct Scratch {
  Tensor branch;  // (n, d): a block's branch output on its way to the residual; in backward its input's gradient
  Tensor residual_gradient;  // (n, d)
  Tensor gathered;           // (N, d), absent at P = 1
  Tensor gathered_gradient;  // (N, d), absent at P = 1
  Tensor partial;            // (N, d), absent at P = 1
  Tensor hidden;             // (N, max(heads * head_dim, d_ff) / P), training only
  Tensor qkv_gradient;       // (N, (heads + 2 kv_heads) * head_dim / P), training only
  Tensor qk_dots;            // (N, S) f32, training with model.qk_norm only: QkNormLayer's sums
  Tensor documents;          // (2, B, C) i32, with model.document_end only, and the transformer's: FindDocuments
  Buffer storage;

  // In the back end's activation dtype where nothing else is said.

  Scratch(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& shape, bool training);
};

}  // namespace vqlm
