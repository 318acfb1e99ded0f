// Rows of the embedding table by token id, and their gradients.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/ops/embedding.h"

namespace vqlm::cpu {

template <>
void run(const EmbeddingForward& op) {
  const std::int64_t tokens = op.ids.numel(), rows = op.table.extent(0), width = op.table.extent(1);
  float* const to = op.out.f32();
  const float* const from = op.table.f32();
  const float* const base = op.base ? op.base.f32() : nullptr;
  const std::int32_t* const id = op.ids.i32();
  parallel_blocks(tokens, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t row = id[n] - op.first_row;
      const bool inside = row >= 0 && row < rows;
      float* const out = to + n * width;
      if (base == nullptr && inside) {
        std::copy_n(from + row * width, width, out);
      } else if (base == nullptr) {
        std::fill_n(out, width, 0.0f);
      } else if (inside) {
        for (std::int64_t i = 0; i < width; ++i) out[i] = base[n * width + i] + from[row * width + i];
      } else if (base != to) {
        std::copy_n(base + n * width, width, out);
      }
    }
  });
}

template <>
void run(const EmbeddingBackward& op) {
  const std::int64_t tokens = op.ids.numel(), rows = op.dtable.extent(0), width = op.dtable.extent(1);
  float* const to = op.dtable.f32();
  const float* const from = op.dout.f32();
  const std::int32_t* const id = op.ids.i32();
  // Every thread reads all ids and adds to the table rows that are its own (modulo, since frequent tokens are
  // neighbours): a row's sum is in token order whatever the number of threads, with no atomics.
#pragma omp parallel if (tokens * width > block_elements)
  {
    const std::int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    for (std::int64_t n = 0; n < tokens; ++n) {
      const std::int64_t row = id[n] - op.first_row;
      if (row < 0 || row >= rows || row % threads != thread) continue;
      float* const sums = to + row * width;
      const float* const gradient = from + n * width;
      for (std::int64_t i = 0; i < width; ++i) sums[i] += gradient[i];
    }
  }
}

}  // namespace vqlm::cpu
