// Row numbers in the order of an integer key: what the embedding's gradient and the VQ head's members are grouped by.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cuda/context.h"
#include "core/tensor.h"

namespace vqlm::cuda {

/// Bytes of scratch that sort_rows needs for `rows` rows.
std::size_t sort_rows_scratch_bytes(std::int64_t rows);

/// order (N) i32 overwritten: the row numbers 0 .. N - 1 sorted by keys (N) i32, each in [-1, bound); rows with equal
/// keys keep their order, and rows with key -1 come last. `scratch`: sort_rows_scratch_bytes(N) bytes of device memory,
/// aligned to 16, that hold nothing else until the sort is done (the caller carves it out of context.workspace, whose
/// get() may be called once in an op only). The same in every run. N below 2^31.
void sort_rows(const Context& context, Tensor order, Tensor keys, std::int64_t bound, void* scratch);

}  // namespace vqlm::cuda
