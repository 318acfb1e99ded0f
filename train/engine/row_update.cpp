#include "train/engine/row_update.h"

#include <algorithm>
#include <numeric>

#include "core/ops/embedding.h"
#include "core/ops/scatter_add_rows.h"

namespace vqlm {
namespace {

std::int64_t sum_of(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

/// Rows of each owner that are gathered at a time: memory for them does not grow with the step.
constexpr std::int64_t gathered_at_once = 8192;

std::vector<std::int64_t> times(std::vector<std::int64_t> counts, std::int64_t width) {
  for (std::int64_t& count : counts) count *= width;
  return counts;
}

}  // namespace

Tensor RowUpdate::Room::get(Backend& backend, Shape shape, DType dtype) {
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_of(dtype);
  if (bytes > bytes_ || bytes_ == 0) {
    buffer_ = {};  // before the larger one
    bytes_ = std::max<std::size_t>(bytes + bytes / 4, 256);
    buffer_ = backend.allocate(bytes_, MemoryUse::workspace);
  }
  return buffer_.view(shape, dtype);
}

RowUpdate::RowUpdate(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, ParameterId table,
                     StepRows& step, Tensor m, Tensor v)
    : backend_(backend), grid_(grid), parameters_(parameters), table_(table), step_(step) {
  const Shape part = parameters.rows_of_owner(parameters.parameters()[static_cast<std::size_t>(table)].bucket);
  owner_rows_ = part[0];
  width_ = part[1];
  reserve();
  if (m) m_ = m.view(part);
  if (v) v_ = v.view(part);
}

/// What a step takes whose rows are all different and fall on all owners alike, so that plans and the log know of it.
void RowUpdate::reserve() {
  const std::int64_t touched = step_.all_gradients().extent(0), ranks = grid_.data_size();
  const std::int64_t owned = std::min(owner_rows_, touched);
  const DType a = backend_.activation_dtype();
  own_room_.get(backend_, {alone() ? touched : owned}, DType::i32);
  if (alone()) return;
  counts_room_.get(backend_, {2, ranks}, DType::i32);
  ids_room_.get(backend_, {2 * touched}, DType::i32);
  places_room_.get(backend_, {touched}, DType::i32);
  gathered_ids_room_.get(backend_, {ranks * owned}, DType::i32);
  block_room_.get(backend_, {touched, width_}, DType::f32);
  sums_room_.get(backend_, {owned, width_}, DType::f32);
  values_room_.get(backend_, {ranks * std::min(owned, gathered_at_once), width_}, a);
}

std::vector<std::int32_t> RowUpdate::exchange_counts(const std::vector<std::int32_t>& counts) {
  const auto ranks = static_cast<std::int64_t>(counts.size());
  const Tensor both = counts_room_.get(backend_, {2, ranks}, DType::i32);
  const Tensor in = both.rows(0, 1).view({ranks}), out = both.rows(1, 1).view({ranks});
  backend_.copy_from_host(in, counts.data());
  join(grid_.data().all_to_all(out, in, backend_.compute_stream()));
  std::vector<std::int32_t> received(counts.size());
  backend_.copy_to_host(received.data(), out);
  // A plan exchanges no numbers: there every rank asks for as much as this one.
  return backend_.computes() ? received : counts;
}

void RowUpdate::plan() {
  const std::span<const std::int32_t> touched = step_.touched();
  if (alone()) {
    rows_.assign(touched.begin(), touched.end());
  } else {
    exchange_rows();
    plan_gathering();
  }
  own_rows_ = own_room_.get(backend_, {static_cast<std::int64_t>(rows_.size())}, DType::i32);
  if (!rows_.empty()) backend_.copy_from_host(own_rows_, rows_.data());
}

/// What each rank touches of this owner's part; the union of it, and each received row's place there.
void RowUpdate::exchange_rows() {
  const std::span<const std::int32_t> touched = step_.touched();
  std::vector<std::int32_t> counts(static_cast<std::size_t>(grid_.data_size()), 0);
  for (const std::int32_t row : touched) ++counts[static_cast<std::size_t>(row / owner_rows_)];
  sent_.assign(counts.begin(), counts.end());
  const std::vector<std::int32_t> received = exchange_counts(counts);
  received_.assign(received.begin(), received.end());

  const std::int64_t sends = sum_of(sent_), receives = sum_of(received_);
  const Tensor ids = ids_room_.get(backend_, {sends + receives}, DType::i32);
  const Tensor in = ids.range(0, sends), out = ids.range(sends, receives);
  if (sends > 0) backend_.copy_from_host(in, touched.data());
  join(grid_.data().all_to_all_v(out, received_, in, sent_, backend_.compute_stream()));
  std::vector<std::int32_t> theirs(static_cast<std::size_t>(receives));
  if (receives > 0) backend_.copy_to_host(theirs.data(), out);
  if (!backend_.computes()) std::iota(theirs.begin(), theirs.end(), 0);  // a plan's: all different
  const auto first = static_cast<std::int32_t>(grid_.data_rank() * owner_rows_);
  for (std::int32_t& row : theirs)
    row = backend_.computes() ? row - first : row % static_cast<std::int32_t>(owner_rows_);

  rows_ = theirs;
  std::ranges::sort(rows_);
  rows_.erase(std::ranges::unique(rows_).begin(), rows_.end());
  for (std::int32_t& row : theirs)
    row = static_cast<std::int32_t>(std::ranges::lower_bound(rows_, row) - rows_.begin());
  places_ = places_room_.get(backend_, {receives}, DType::i32);
  if (receives > 0) backend_.copy_from_host(places_, theirs.data());
}

/// All owners' rows of this step, padded to the longest list.
void RowUpdate::plan_gathering() {
  const auto ranks = static_cast<std::size_t>(grid_.data_size());
  const std::vector<std::int32_t> counts =
      exchange_counts(std::vector<std::int32_t>(ranks, static_cast<std::int32_t>(rows_.size())));
  most_ = std::ranges::max(counts);
  std::vector<std::int32_t> mine(static_cast<std::size_t>(most_), -1);
  const auto first = static_cast<std::int32_t>(grid_.data_rank() * owner_rows_);
  std::ranges::transform(rows_, mine.begin(), [&](std::int32_t row) { return row + first; });
  gathered_rows_ = gathered_ids_room_.get(backend_, {grid_.data_size() * most_}, DType::i32);
  for_each_gathering([&](Tensor rows, std::int64_t first_of_mine) {
    const std::int64_t count = rows.numel() / grid_.data_size();
    const Tensor own = rows.range(grid_.data_rank() * count, count);
    backend_.copy_from_host(own, mine.data() + first_of_mine);
    join(grid_.data().all_gather(rows, own, backend_.compute_stream()));
  });
}

void RowUpdate::for_each_gathering(const std::function<void(Tensor rows, std::int64_t first)>& visit) {
  for (std::int64_t first = 0; first < most_; first += gathered_at_once) {
    const std::int64_t count = std::min(gathered_at_once, most_ - first);
    visit(gathered_rows_.range(grid_.data_size() * first, grid_.data_size() * count), first);
  }
}

void RowUpdate::reduce() {
  if (alone()) {
    reduced_ = step_.gradients();
    return;
  }
  const std::int64_t receives = sum_of(received_);
  const Tensor out = block_room_.get(backend_, {receives, width_}, DType::f32);
  join(grid_.data().all_to_all_v(out.view({receives * width_}), times(received_, width_),
                                 step_.gradients().view({step_.gradients().numel()}), times(sent_, width_),
                                 backend_.compute_stream()));
  reduced_ = sums_room_.get(backend_, {static_cast<std::int64_t>(rows_.size()), width_}, DType::f32);
  if (!rows_.empty()) backend_.fill(reduced_, 0.0f);
  std::int64_t begin = 0;
  for (const std::int64_t count : received_) {
    if (count > 0) {
      backend_.run(
          ScatterAddRows{.dtable = reduced_, .dout = out.rows(begin, count), .rows = places_.range(begin, count)});
    }
    begin += count;
  }
}

void RowUpdate::update(const AdamWStep& step, Tensor norm_squared) {
  const Parameter& table = parameters_.parameters()[static_cast<std::size_t>(table_)];
  const std::int64_t count = owner_rows_ * width_, begin = table.flat_begin + grid_.data_rank() * count;
  const Tensor rounded = parameters_.flat_rounded();
  if (!rows_.empty()) {
    backend_.run(AdamWRows{.param = parameters_.masters(begin, count).view({owner_rows_, width_}),
                           .rounded = rounded ? rounded.range(begin, count).view({owner_rows_, width_}) : Tensor{},
                           .m = m_,
                           .v = v_,
                           .grad = reduced_,
                           .rows = own_rows_,
                           .norm_squared = norm_squared,
                           .step = step});
  }
  if (!alone()) gather();
}

void RowUpdate::gather() {
  const Tensor table = parameters_.operand(table_);
  for_each_gathering([&](Tensor rows, std::int64_t) {
    const std::int64_t count = rows.numel() / grid_.data_size();
    const Tensor values = values_room_.get(backend_, {rows.numel(), width_}, backend_.activation_dtype());
    const Tensor own = values.rows(grid_.data_rank() * count, count);
    backend_.run(EmbeddingForward{
        .out = own, .ids = rows.range(grid_.data_rank() * count, count), .table = table, .first_row = 0});
    join(grid_.data().all_gather(values.view({values.numel()}), own.view({own.numel()}), backend_.compute_stream()));
    backend_.run(CopyRows{.table = table, .from = values, .rows = rows});
  });
}

}  // namespace vqlm
