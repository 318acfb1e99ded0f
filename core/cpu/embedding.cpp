// Rows of the embedding table by token id, and their gradients.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm::cpu {

void embedding_forward(Tensor out, Tensor ids, Tensor table, std::int64_t first_row) {
  VQLM_ASSERT(table.rank() == 2);
  const std::int64_t tokens = ids.numel(), rows = table.extent(0), width = table.extent(1);
  VQLM_ASSERT(out.numel() == tokens * width);
  float* const to = out.f32();
  const float* const from = table.f32();
  const std::int32_t* const id = ids.i32();
  parallel_blocks(tokens, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t row = id[n] - first_row;
      if (row >= 0 && row < rows) {
        std::copy_n(from + row * width, width, to + n * width);
      } else {
        std::fill_n(to + n * width, width, 0.0f);
      }
    }
  });
}

void embedding_backward(Tensor dtable, Tensor dout, Tensor ids, std::int64_t first_row) {
  VQLM_ASSERT(dtable.rank() == 2);
  const std::int64_t tokens = ids.numel(), rows = dtable.extent(0), width = dtable.extent(1);
  VQLM_ASSERT(dout.numel() == tokens * width);
  float* const to = dtable.f32();
  const float* const from = dout.f32();
  const std::int32_t* const id = ids.i32();
  // Every thread reads all ids and adds to the table rows that are its own (modulo, since frequent tokens are
  // neighbours): a row's sum is in token order whatever the number of threads, with no atomics.
#pragma omp parallel if (tokens * width > block_elements)
  {
    const std::int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    for (std::int64_t n = 0; n < tokens; ++n) {
      const std::int64_t row = id[n] - first_row;
      if (row < 0 || row >= rows || row % threads != thread) continue;
      float* const sums = to + row * width;
      const float* const gradient = from + n * width;
      for (std::int64_t i = 0; i < width; ++i) sums[i] += gradient[i];
    }
  }
}

}  // namespace vqlm::cpu
