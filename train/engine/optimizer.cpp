#include "train/engine/optimizer.h"

#include <algorithm>
#include <cmath>

#include "train/config/role_ratios.h"

namespace vqlm {
namespace {

/// The buckets with whole gradients: those in front.
std::span<const ParameterBucket> whole_buckets(const ParameterStore& parameters) {
  const std::vector<ParameterBucket>& all = parameters.buckets();
  const auto count = static_cast<std::size_t>(std::ranges::count(all, false, &ParameterBucket::by_rows));
  return std::span(all).first(count);
}

}  // namespace

Optimizer::Optimizer(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, const OptimSection& numbers,
                     float grad_clip, Overlap overlap, std::int64_t head_since, const std::vector<RowTable>& tables,
                     const std::vector<int>& in_forward)
    : backend_(backend),
      grid_(grid),
      parameters_(parameters),
      numbers_(numbers),
      grad_clip_(grad_clip),
      head_since_(head_since),
      buckets_(backend, grid, parameters.flat_gradients(), whole_buckets(parameters), overlap),
      gathers_(backend, grid, parameters, buckets_, overlap, in_forward),
      owned_(buckets_.owned()) {
  for (const ParameterBucket& bucket : parameters.buckets()) {
    const std::int64_t count = bucket.count / grid.data_size();
    if (bucket.by_rows) owned_.push_back({bucket.begin + grid.data_rank() * count, count});
  }
  make_segments();
  const std::int64_t moments = owned_count_ + second_count_;
  moments_ = backend.allocate(static_cast<std::size_t>(moments) * sizeof(float), MemoryUse::optimizer);
  backend.fill(moments_.view({moments}), 0.0f);
  norm_squared_ = backend.allocate(sizeof(double), MemoryUse::workspace);
  make_row_updates(tables);
  if (numbers_.kind == OptimizerKind::adamw) return;
  std::vector<Muon::Slice> hidden;
  for (const Segment& s : segments_) {
    if (s.by_muon) hidden.push_back({s.flat_begin, s.count, first_moment().range(s.moment_begin, s.count)});
  }
  muon_.emplace(backend, grid, parameters,
                Muon::Numbers{.momentum = numbers_.muon_momentum,
                              .weight_decay = numbers_.weight_decay * numbers_.blocks.decay_ratio,
                              .max_norm = grad_clip_},
                hidden);
}

bool Optimizer::by_muon(const Parameter& parameter) const {
  return numbers_.kind == OptimizerKind::muon && parameter.hidden_matrix;
}

std::vector<Optimizer::OwnedSlice> Optimizer::owned_slices() const {
  std::vector<OwnedSlice> slices;
  std::int64_t moment_begin = 0;
  std::int64_t second_begin = 0;  // behind the last one placed, where some are not there
  for (const BucketRange& piece : owned_) {
    for (std::size_t id = 0; id < parameters_.parameters().size(); ++id) {
      const Parameter& p = parameters_.parameters()[id];
      const std::int64_t begin = std::max(piece.begin, p.flat_begin);
      const std::int64_t end = std::min(piece.begin + piece.count, p.flat_begin + p.shape.numel());
      if (begin >= end) continue;
      OwnedSlice slice{static_cast<ParameterId>(id), begin - p.flat_begin, end - begin,
                       moment_begin + begin - piece.begin, moment_begin + begin - piece.begin};
      if (numbers_.kind == OptimizerKind::muon) {
        // As aligned for vector loads as the values are.
        const std::int64_t place = aligned_like(begin, second_begin);
        slice.second_begin = by_muon(p) ? not_there : place;
        if (!by_muon(p)) second_begin = place + room_of(slice);
      }
      slices.push_back(slice);
    }
    moment_begin += piece.count;
  }
  return slices;
}

bool Optimizer::is_primary(ParameterId id) const {
  const Parameter& p = parameters_.parameters()[static_cast<std::size_t>(id)];
  return !parameters_.buckets()[static_cast<std::size_t>(p.bucket)].replicated || grid_.tensor_rank() == 0;
}

std::int64_t Optimizer::room_of(const OwnedSlice& slice) const {
  const Parameter& p = parameters_.parameters()[static_cast<std::size_t>(slice.parameter)];
  const ParameterBucket& bucket = parameters_.buckets()[static_cast<std::size_t>(p.bucket)];
  return bucket.by_rows ? bucket.count / grid_.data_size() : slice.count;
}

void Optimizer::make_row_updates(const std::vector<RowTable>& tables) {
  tables_.reserve(tables.size());
  const std::vector<OwnedSlice> slices = owned_slices();
  for (const RowTable& table : tables) {
    const Parameter& p = parameters_.parameters()[static_cast<std::size_t>(table.id)];
    Tensor m, v;  // none where padding is all that is owned
    if (const auto slice = std::ranges::find(slices, table.id, &OwnedSlice::parameter); slice != slices.end()) {
      m = first_moment().range(slice->moment_begin, room_of(*slice));
      v = second_moment().range(slice->second_begin, room_of(*slice));
    }
    tables_.push_back(
        {RowUpdate(backend_, grid_, parameters_, table.id, table.step, m, v), ratios_of(numbers_, p.role)});
  }
}

void Optimizer::begin_step() {
  for (Table& table : tables_) table.update.plan();
}

void Optimizer::make_segments() {
  bool interrupted = false;  // by values that are not updated here, since the last segment
  for (const OwnedSlice& slice : owned_slices()) {
    const Parameter& p = parameters_.parameters()[static_cast<std::size_t>(slice.parameter)];
    if (p.rule == UpdateRule::derived || parameters_.buckets()[static_cast<std::size_t>(p.bucket)].by_rows) {
      interrupted = true;
      continue;
    }
    const RoleRatios& ratios = ratios_of(numbers_, p.role);
    const bool learned = p.rule == UpdateRule::gradient;
    const Segment segment{p.flat_begin + slice.begin,
                          slice.count,
                          slice.moment_begin,
                          slice.second_begin,
                          by_muon(p),
                          learned && is_primary(slice.parameter),
                          p.rule,
                          p.average_decay,
                          ratios.lr_ratio,
                          p.decay ? ratios.decay_ratio : 0.0f,
                          belongs_to_head(p) ? head_since_ : 0};
    // Neighbours that are updated in one way become one range; the padding between them is zero and stays zero.
    if (!segments_.empty()) {
      Segment& last = segments_.back();
      const std::int64_t gap = segment.flat_begin - last.flat_begin - last.count;
      if (!interrupted && last.same_way(segment) && gap >= 0 &&
          segment.moment_begin - last.moment_begin == segment.flat_begin - last.flat_begin &&
          segment.second_begin - last.second_begin == segment.flat_begin - last.flat_begin) {
        last.count += gap + segment.count;
        continue;
      }
    }
    segments_.push_back(segment);
    interrupted = false;
  }
  for (const BucketRange& piece : owned_) owned_count_ += piece.count;
  second_count_ = owned_count_;
  if (numbers_.kind == OptimizerKind::adamw) return;
  second_count_ = 0;
  for (const OwnedSlice& slice : owned_slices()) {
    if (slice.second_begin != not_there) second_count_ = slice.second_begin + room_of(slice);
  }
}

void Optimizer::bucket_ready(int bucket) {
  buckets_.reduce(static_cast<std::size_t>(bucket), backend_.compute_stream());
}

void Optimizer::finish_reductions() {
  for (const Event& done : buckets_.finish()) backend_.wait(backend_.compute_stream(), done);
}

double Optimizer::step(std::int64_t step, float lr) {
  VQLM_ASSERT(step > head_since_);
  const Tensor norm_squared = norm_squared_.view({1}, DType::f64);
  double squared = 0;
  backend_.copy_from_host(norm_squared, &squared);
  for (Table& table : tables_) {
    table.update.reduce();
    if (table.update.reduced().numel() > 0)
      backend_.run(AddSumOfSquares{.out = norm_squared, .x = table.update.reduced()});
  }
  for (const Segment& s : segments_) {
    if (!s.counts_in_norm) continue;
    backend_.run(AddSumOfSquares{.out = norm_squared, .x = parameters_.flat_gradients().range(s.flat_begin, s.count)});
  }
  backend_.wait(backend_.compute_stream(),
                grid_.world().all_reduce(norm_squared, Reduce::sum, backend_.compute_stream()));
  update(step, lr);
  gathers_.updated();
  backend_.copy_to_host(&squared, norm_squared);
  return std::sqrt(squared);
}

void Optimizer::update(std::int64_t step, float lr) {
  AdamWStep numbers{.lr = lr,
                    .beta1 = numbers_.beta1,
                    .beta2 = numbers_.beta2,
                    .eps = numbers_.eps,
                    .weight_decay = 0,
                    .step = 0,
                    .max_norm = grad_clip_};
  const Tensor rounded = parameters_.flat_rounded();
  const Tensor norm_squared = norm_squared_.view({1}, DType::f64);
  for (const Segment& s : segments_) {
    if (s.by_muon) continue;
    if (s.rule == UpdateRule::moving_average) {
      backend_.run(MovingAverage{.average = parameters_.masters(s.flat_begin, s.count),
                                 .x = parameters_.flat_gradients().range(s.flat_begin, s.count),
                                 .norm_squared = norm_squared,
                                 .decay = s.average_decay});
      continue;
    }
    numbers.lr = lr * s.lr_ratio;
    numbers.step = step - s.since;
    numbers.weight_decay = numbers_.weight_decay * s.decay_ratio;
    backend_.run(AdamW{.param = parameters_.masters(s.flat_begin, s.count),
                       .rounded = rounded ? rounded.range(s.flat_begin, s.count) : Tensor{},
                       .m = first_moment().range(s.moment_begin, s.count),
                       .v = second_moment().range(s.second_begin, s.count),
                       .grad = parameters_.flat_gradients().range(s.flat_begin, s.count),
                       .norm_squared = norm_squared,
                       .step = numbers});
  }
  for (Table& table : tables_) {
    numbers.lr = lr * table.ratios.lr_ratio;
    numbers.step = step;
    numbers.weight_decay = numbers_.weight_decay * table.ratios.decay_ratio;
    table.update.update(numbers, norm_squared);
  }
  if (muon_) muon_->update(norm_squared, lr * numbers_.blocks.lr_ratio);
}

}  // namespace vqlm
