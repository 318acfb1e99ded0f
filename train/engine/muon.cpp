#include "train/engine/muon.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ranges>

namespace vqlm {
namespace {

double work_of(const Shape& matrix) {
  const auto rows = static_cast<double>(matrix[0]), columns = static_cast<double>(matrix[1]);
  return rows * columns * std::min(rows, columns);
}

}  // namespace

std::vector<int> homes_of(std::span<const Shape> matrices, int ranks) {
  std::vector<std::size_t> order(matrices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order,
                           [&](std::size_t x, std::size_t y) { return work_of(matrices[x]) > work_of(matrices[y]); });
  std::vector<double> load(static_cast<std::size_t>(ranks), 0.0);
  std::vector<int> homes(matrices.size());
  for (const std::size_t matrix : order) {
    const auto least = std::prev(std::ranges::min_element(std::views::reverse(load)).base());  // the last of equal ones
    homes[matrix] = static_cast<int>(least - load.begin());
    *least += work_of(matrices[matrix]);
  }
  return homes;
}

Muon::Muon(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, const Numbers& numbers,
           std::span<const Slice> slices)
    : backend_(backend), grid_(grid), parameters_(parameters), numbers_(numbers) {
  std::vector<Shape> shapes;
  for (std::size_t id = 0; id < parameters.parameters().size(); ++id) {
    const Parameter& p = parameters.parameters()[id];
    if (!p.hidden_matrix) continue;
    VQLM_ASSERT(p.global_shape.rank() == 2 && p.rule == UpdateRule::gradient);
    VQLM_ASSERT(p.shape.numel() * grid.tensor_size() == p.global_shape.numel());  // equal slices
    shapes.push_back(p.global_shape);
    matrices_.push_back({.parameter = static_cast<ParameterId>(id),
                         .rows = p.global_shape[0],
                         .columns = p.global_shape[1],
                         .by_columns = p.shape[1] != p.global_shape[1]});
  }
  const std::vector<int> homes = homes_of(shapes, grid.world().size());
  for (std::size_t i = 0; i < matrices_.size(); ++i) {
    matrices_[i].home = homes[i];
    if (homes[i] == grid.world().rank()) homed_.push_back(i);
  }
  lay_out(slices);
}

void Muon::Blocks::add(std::span<Piece> pieces) {
  const std::int64_t end = pieces.empty() ? 0 : pieces.back().place + pieces.back().count;
  for (Piece& piece : pieces) piece.place += elements;
  counts.push_back(aligned_like(0, end));
  elements += counts.back();
}

std::vector<std::vector<Muon::Piece>> Muon::pieces_of(int owner) const {
  const int data_rank = owner / grid_.tensor_size();  // the same of all tensor ranks: their slices are equal
  std::vector<std::vector<Piece>> pieces(static_cast<std::size_t>(grid_.world().size()));
  std::vector<std::int64_t> cursors(pieces.size(), 0);
  for (std::size_t i = 0; i < matrices_.size(); ++i) {
    const Parameter& p = parameters_.parameters()[static_cast<std::size_t>(matrices_[i].parameter)];
    const ParameterBucket& bucket = parameters_.buckets()[static_cast<std::size_t>(p.bucket)];
    const std::int64_t share = bucket.count / grid_.data_size(), first = p.flat_begin - bucket.begin;
    const std::int64_t begin = std::max(first, data_rank * share);
    const std::int64_t end = std::min(first + p.shape.numel(), (data_rank + 1) * share);
    if (begin >= end) continue;
    const auto home = static_cast<std::size_t>(matrices_[i].home);
    const std::int64_t place = aligned_like(begin, cursors[home]);
    pieces[home].push_back(
        {.matrix = i, .owner = owner, .begin = begin - first, .count = end - begin, .place = place});
    cursors[home] = place + end - begin;
  }
  return pieces;
}

void Muon::lay_out(std::span<const Slice> slices) {
  const int ranks = grid_.world().size(), self = grid_.world().rank();
  for (int owner = 0; owner < ranks; ++owner) {
    std::vector<std::vector<Piece>> pieces = pieces_of(owner);
    std::vector<Piece> to_here = pieces[static_cast<std::size_t>(self)];
    at_home_.add(to_here);
    arriving_.insert(arriving_.end(), to_here.begin(), to_here.end());
    if (owner != self) continue;
    for (std::vector<Piece>& to_home : pieces) {
      at_owner_.add(to_home);
      for (const Piece& piece : to_home) own_.push_back({piece, slice_of(piece, slices)});
    }
  }
  const auto allocate = [&](Blocks& blocks) {
    blocks.buffer = backend_.allocate(static_cast<std::size_t>(blocks.elements) * sizeof(float), MemoryUse::workspace);
  };
  allocate(at_owner_);
  if (at_owner_.elements > 0) backend_.fill(at_owner_.all(), 0.0f);  // gaps between pieces travel, too
  if (ranks > 1) allocate(at_home_);
  if (homed_.empty()) return;
  std::int64_t elements = 0, side = 0;
  for (const std::size_t i : homed_) {
    elements = std::max(elements, matrices_[i].rows * matrices_[i].columns);
    side = std::max(side, std::min(matrices_[i].rows, matrices_[i].columns));
  }
  whole_ = backend_.allocate(static_cast<std::size_t>(elements) * sizeof(float), MemoryUse::workspace);
  norms_ = backend_.allocate(homed_.size() * sizeof(double), MemoryUse::workspace);
  iteration_.emplace(backend_, elements, side);
}

const Muon::Slice& Muon::slice_of(const Piece& piece, std::span<const Slice> slices) const {
  const Parameter& p = parameters_.parameters()[static_cast<std::size_t>(matrices_[piece.matrix].parameter)];
  const auto slice = std::ranges::find(slices, p.flat_begin + piece.begin, &Slice::flat_begin);
  VQLM_ASSERT(slice != slices.end() && slice->count == piece.count);
  return *slice;
}

float Muon::scale_of(const Matrix& matrix) const {
  return 0.2f * std::sqrt(static_cast<float>(std::max(matrix.rows, matrix.columns)));
}

void Muon::orthogonalise(const Matrix& matrix, std::size_t number) {
  const int tensor = grid_.tensor_size();
  const std::int64_t slice = matrix.rows * matrix.columns / tensor;
  const Tensor whole = whole_.view({matrix.rows * matrix.columns});
  const auto each_piece = [&](const auto& visit) {
    for (const Piece& piece : arriving_) {
      if (matrices_[piece.matrix].parameter != matrix.parameter) continue;
      visit(at_home().of(piece), whole.range((piece.owner % tensor) * slice + piece.begin, piece.count));
    }
  };
  each_piece([&](Tensor arrived, Tensor part) { backend_.copy(part, arrived); });
  iteration_->run(
      whole, {.rows = matrix.rows, .columns = matrix.columns, .blocks = matrix.by_columns ? tensor : 1},
      norms_.view({static_cast<std::int64_t>(homed_.size())}, DType::f64).range(static_cast<std::int64_t>(number), 1));
  each_piece([&](Tensor arrived, Tensor part) { backend_.copy(arrived, part); });
}

void Muon::exchange(const Blocks& to, const Blocks& from) {
  Communicator& world = grid_.world();
  if (world.size() == 1) return;
  backend_.wait(backend_.compute_stream(),
                world.all_to_all_v(to.all(), to.counts, from.all(), from.counts, backend_.compute_stream()));
}

void Muon::update(Tensor norm_squared, float lr) {
  for (const Own& own : own_) {
    backend_.run(MuonMomentum{.m = own.slice.momentum,
                              .direction = at_owner_.of(own.piece),
                              .grad = parameters_.flat_gradients().range(own.slice.flat_begin, own.slice.count),
                              .norm_squared = norm_squared,
                              .momentum = numbers_.momentum,
                              .max_norm = numbers_.max_norm});
  }
  exchange(at_home_, at_owner_);
  if (!homed_.empty()) {
    const std::vector<double> zeros(homed_.size(), 0.0);
    backend_.copy_from_host(norms_.view({static_cast<std::int64_t>(zeros.size())}, DType::f64), zeros.data());
  }
  for (std::size_t number = 0; number < homed_.size(); ++number) orthogonalise(matrices_[homed_[number]], number);
  exchange(at_owner_, at_home_);
  const Tensor rounded = parameters_.flat_rounded();
  const float keep = static_cast<float>(1 - static_cast<double>(lr) * static_cast<double>(numbers_.weight_decay));
  for (const Own& own : own_) {
    backend_.run(MuonUpdate{.param = parameters_.masters(own.slice.flat_begin, own.slice.count),
                            .rounded = rounded ? rounded.range(own.slice.flat_begin, own.slice.count) : Tensor{},
                            .direction = at_owner_.of(own.piece),
                            .norm_squared = norm_squared,
                            .keep_param = keep,
                            .step_size = lr * scale_of(matrices_[own.piece.matrix])});
  }
}

}  // namespace vqlm
