// Splitting work over OpenMP threads. Block sizes follow from shapes alone and partial sums are added in
// block order, so results do not depend on the number of threads. The number of threads is OpenMP's current
// one (CpuBackend sets it before every op). Bodies must not throw.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vqlm::cpu {

/// Elements that make a block worth a thread: 16 Ki floats take about 10 us, a thread hand-over 1 to 2.
constexpr std::int64_t block_elements = std::int64_t{1} << 14;

/// Rows of `columns` elements that fill a block; at least one.
constexpr std::int64_t rows_per_block(std::int64_t columns) {
  return std::max<std::int64_t>(1, block_elements / std::max<std::int64_t>(1, columns));
}

/// body(begin, end) for the consecutive blocks of [0, n); begin is a multiple of `block`.
template <class Body>
void parallel_blocks(std::int64_t n, std::int64_t block, const Body& body) {
  const std::int64_t blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (std::int64_t b = 0; b < blocks; ++b) body(b * block, std::min(n, (b + 1) * block));
}

/// out (columns) accumulates the sum over `rows` rows; add_rows(sums, begin, end) adds rows [begin, end) to
/// sums (columns). At most 64 row blocks (the parallelism), of at least 16 rows (so that the partial sums
/// cost at most 1/16 of the traffic).
template <class AddRows>
void accumulate_over_rows(float* out, std::int64_t rows, std::int64_t columns, const AddRows& add_rows) {
  const std::int64_t block = std::max<std::int64_t>(16, (rows + 63) / 64);
  const std::int64_t blocks = (rows + block - 1) / block;
  std::vector<float> partial(static_cast<std::size_t>(blocks * columns));
  parallel_blocks(rows, block, [&](std::int64_t begin, std::int64_t end) {
    add_rows(partial.data() + begin / block * columns, begin, end);
  });
  parallel_blocks(columns, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const float* sums = partial.data() + b * columns;
      for (std::int64_t c = begin; c < end; ++c) out[c] += sums[c];
    }
  });
}

}  // namespace vqlm::cpu
