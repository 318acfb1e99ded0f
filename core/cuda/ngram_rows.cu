// Rows of n-gram tables. A thread has a token and reads the order - 1 before it, which its neighbours read, too: 8 bytes a
// token from memory (16 with documents and history), N = 65,536: 0.5 to 1 MB, bound by the launch; not measured.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/ops/ngram_rows.h"

namespace vqlm::cuda {
namespace {

struct Sequences {
  const std::int32_t* tokens;  // (B, length), from position `past` on
  std::int32_t* history;       // (B, history_capacity), from position 0 on; may be null
  const std::int32_t* begins;  // (B, documents_capacity); may be null
  std::int64_t length, past, history_capacity, documents_capacity;
};

__global__ void ngram_rows_kernel(GridDependency dependency, std::int32_t* rows, Sequences of, std::int64_t count,
                                  int order, int table, std::int64_t table_rows) {
  dependency.wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const std::int64_t b = i / of.length, t = i % of.length, position = of.past + t;
  const std::int64_t begin = of.begins != nullptr ? of.begins[b * of.documents_capacity + position] : 0;
  const std::int64_t first = position - order + 1;
  bool whole = first >= begin;
  std::uint64_t hash = ngram_start(table);
  for (std::int64_t p = first; whole && p <= position; ++p) {
    // Only places before `past` are read from the history, and only later ones are written.
    const std::int32_t id =
        p >= of.past ? of.tokens[b * of.length + p - of.past] : of.history[b * of.history_capacity + p];
    whole = id >= 0;
    hash = ngram_next(hash, id);
  }
  rows[i] = whole ? ngram_row(hash, table_rows) : -1;
  if (of.history != nullptr) of.history[b * of.history_capacity + position] = of.tokens[i];
}

}  // namespace

template <>
void run(const Context& context, const NgramRows& op) {
  const std::int64_t count = op.tokens.numel();
  if (count == 0) return;
  const Sequences of{.tokens = op.tokens.i32(),
                     .history = op.history ? op.history.i32() : nullptr,
                     .begins = op.documents ? op.documents.i32() : nullptr,
                     .length = op.tokens.extent(1),
                     .past = op.past,
                     .history_capacity = op.history ? op.history.extent(1) : 0,
                     .documents_capacity = op.documents ? op.documents.extent(2) : 0};
  launch(ngram_rows_kernel, {static_cast<unsigned>((count + 255) / 256), 256, 0, context.stream}, op.rows.i32(), of,
         count, op.order, op.table, op.table_rows);
}

}  // namespace vqlm::cuda
