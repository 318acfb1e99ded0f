#include "core/tensor_parallel.h"

namespace vqlm {
namespace {

/// x's shape with the first extent replaced.
Tensor with_rows(Tensor storage, const Tensor& like, std::int64_t rows) {
  Shape shape = like.shape();
  shape.set(0, rows);
  return storage.range(0, shape.numel()).view(shape);
}

}  // namespace

Tensor TensorParallel::gather(Tensor x, Tensor scratch) const {
  if (size() == 1) return x;
  Tensor out = with_rows(scratch, x, x.extent(0) * size());
  join(group_.all_gather(out, x, backend_.compute_stream()));
  return out;
}

void TensorParallel::reduce_scatter(Tensor out, Tensor partial) const {
  if (size() == 1) {
    if (out.data() != partial.data()) backend_.copy(out, partial);
    return;
  }
  join(group_.reduce_scatter(out, partial, Reduce::sum, backend_.compute_stream()));
}

void TensorParallel::all_reduce(Tensor x) const {
  if (size() > 1) join(group_.all_reduce(x.view({x.numel()}), Reduce::sum, backend_.compute_stream()));
}

void TensorParallel::columns_to_rows(Tensor out, Tensor x, Tensor scratch) const {
  const std::int64_t rows = out.extent(0);
  const std::int64_t columns = x.extent(1);
  if (size() == 1) {
    backend_.copy(out, x);
    return;
  }
  // Rows of rank p are block p of x already; what arrives from rank p are its columns of our rows.
  Tensor received = scratch.range(0, x.numel());
  join(group_.all_to_all(received, x, backend_.compute_stream()));
  backend_.run(SwapAxes{.dst = out.view({rows, size(), columns}), .src = received.view({size(), rows, columns})});
}

void TensorParallel::rows_to_columns(Tensor out, Tensor x, Tensor scratch) const {
  const std::int64_t rows = x.extent(0);
  const std::int64_t columns = out.extent(1);
  if (size() == 1) {
    backend_.copy(out, x);
    return;
  }
  Tensor blocks = scratch.range(0, x.numel());
  backend_.run(SwapAxes{.dst = blocks.view({size(), rows, columns}), .src = x.view({rows, size(), columns})});
  join(group_.all_to_all(out, blocks, backend_.compute_stream()));
}

}  // namespace vqlm
