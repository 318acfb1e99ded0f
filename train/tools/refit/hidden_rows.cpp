#include "train/tools/refit/hidden_rows.h"

#include <algorithm>
#include <cmath>

#include "core/rng.h"
#include "core/tensor_arena.h"

namespace vqlm {
namespace {

/// Columns of a (rows, columns) block, drawn and made orthonormal (Gram-Schmidt, twice, in double precision).
std::vector<std::vector<double>> orthonormal_columns(std::int64_t rows, std::int64_t columns, const Philox& rng,
                                                     std::uint64_t first) {
  std::vector<std::vector<double>> q;
  for (std::int64_t c = 0; c < columns; ++c) {
    std::vector<double> column(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < column.size(); ++i)
      column[i] = static_cast<double>(rng.normal(first + static_cast<std::uint64_t>(c * rows) + i));
    for (int pass = 0; pass < 2; ++pass) {
      for (const std::vector<double>& other : q) {
        double dot = 0;
        for (std::size_t i = 0; i < column.size(); ++i) dot += other[i] * column[i];
        for (std::size_t i = 0; i < column.size(); ++i) column[i] -= dot * other[i];
      }
    }
    double square = 0;
    for (const double value : column) square += value * value;
    for (double& value : column) value /= std::sqrt(square);
    q.push_back(std::move(column));
  }
  return q;
}

}  // namespace

std::int64_t projected_dims(std::int64_t d, int groups, std::int64_t asked) {
  const std::int64_t blocks = std::max(groups, 1);
  return std::min(d, (asked + blocks - 1) / blocks * blocks);
}

std::vector<float> projection_matrix(std::int64_t d, std::int64_t r, int groups, std::uint64_t seed) {
  const std::int64_t blocks = std::max(groups, 1);
  VQLM_ASSERT(d % blocks == 0 && r % blocks == 0 && r <= d);
  const std::int64_t rows = d / blocks, columns = r / blocks;
  std::vector<float> matrix(static_cast<std::size_t>(d * r), 0.0f);
  const Philox rng(seed, "learned_map.projection");
  for (std::int64_t g = 0; g < blocks; ++g) {
    const auto at = [&](std::int64_t i, std::int64_t c) -> float& {
      return matrix[static_cast<std::size_t>((g * rows + i) * r + g * columns + c)];
    };
    if (r == d) {
      for (std::int64_t i = 0; i < rows; ++i) at(i, i) = 1.0f;
      continue;
    }
    const auto block = orthonormal_columns(rows, columns, rng, static_cast<std::uint64_t>(g * rows * columns));
    for (std::int64_t c = 0; c < columns; ++c) {
      for (std::int64_t i = 0; i < rows; ++i)
        at(i, c) = static_cast<float>(block[static_cast<std::size_t>(c)][static_cast<std::size_t>(i)]);
    }
  }
  return matrix;
}

HiddenRows::HiddenRows(Backend& backend, const Transformer& model, int groups, std::int64_t dims, std::uint64_t seed)
    : backend_(backend), model_(model), dims_(dims) {
  const std::int64_t d = model.hidden().extent(1);
  TensorArena arena;
  arena.add(projection_, {d, dims_}, backend.activation_dtype());
  arena.add(rows_, {model.local_rows(), dims_}, DType::f32);
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  host_.resize(static_cast<std::size_t>(rows_.numel()));
  const std::vector<float> matrix = projection_matrix(d, dims_, groups, seed);
  const Buffer f32 = backend.allocate(matrix.size() * sizeof(float), MemoryUse::workspace);
  const Tensor unrounded = f32.view({static_cast<std::int64_t>(matrix.size())});
  backend.copy_from_host(unrounded, matrix.data());
  backend.round_to_activation(projection_.view({projection_.numel()}), unrounded);
  backend.synchronize();  // before the f32 copy goes
}

std::span<const float> HiddenRows::project() {
  backend_.run(Matmul{.c = rows_, .a = model_.hidden(), .b = projection_, .accumulate = Accumulate::no});
  backend_.copy_to_host(host_.data(), rows_);
  return host_;
}

}  // namespace vqlm
