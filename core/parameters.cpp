#include "core/parameters.h"

#include <algorithm>
#include <numeric>

#include "core/box.h"
#include "core/rng.h"

namespace vqlm {

Parameter replicated_parameter(const std::string& name, Shape shape, float stddev, ParameterRole role) {
  return {.name = name,
          .global_shape = shape,
          .offset = origin_of(shape),
          .shape = shape,
          .init = {.stddev = stddev},
          .role = role,
          .decay = shape.rank() >= 2};
}

namespace {

constexpr std::int64_t alignment = parameter_alignment;

std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// Calls visit(local row-major index, global row-major index) for the start of every contiguous run of a
/// slice, with the run's length.
template <class Visit>
void for_each_run(const Parameter& p, Visit visit) {
  const int last = p.shape.rank() - 1;
  const std::int64_t run = last < 0 ? 1 : p.shape[last];
  const std::int64_t runs = run == 0 ? 0 : p.shape.numel() / run;
  for (std::int64_t r = 0; r < runs; ++r) {
    std::int64_t rest = r;
    std::int64_t global = 0;
    std::int64_t stride = last < 0 ? 1 : p.global_shape[last];
    for (int axis = last - 1; axis >= 0; --axis) {
      global += (rest % p.shape[axis] + p.offset[axis]) * stride;
      rest /= p.shape[axis];
      stride *= p.global_shape[axis];
    }
    visit(r * run, global + (last < 0 ? 0 : p.offset[last]), run);
  }
}

std::int64_t elements_with_padding(const Parameter& p) {
  if (p.padded_rows == 0) return p.shape.numel();
  VQLM_ASSERT(p.padded_rows >= p.shape[0]);
  Shape padded = p.shape;
  padded.set(0, p.padded_rows);
  return padded.numel();
}

}  // namespace

ParameterStore::ParameterStore(Backend& backend, DataShare share) : backend_(backend), share_(share) {
  VQLM_ASSERT(share.size >= 1 && share.rank >= 0 && share.rank < share.size);
}

int ParameterStore::add_bucket(const std::string& name, bool replicated) {
  VQLM_ASSERT(values_.data() == nullptr && (buckets_.empty() || !buckets_.back().by_rows));
  buckets_.push_back({.name = name, .replicated = replicated});
  return static_cast<int>(buckets_.size()) - 1;
}

ParameterId ParameterStore::add_table(Parameter table) {
  VQLM_ASSERT(values_.data() == nullptr);
  buckets_.push_back({.name = table.name, .by_rows = true});
  return add(static_cast<int>(buckets_.size()) - 1, {std::move(table)});
}

ParameterId ParameterStore::add(int bucket, std::vector<Parameter> group) {
  VQLM_ASSERT(bucket >= 0 && bucket < static_cast<int>(buckets_.size()) && values_.data() == nullptr);
  const auto first = static_cast<ParameterId>(parameters_.size());
  groups_.push_back({first, static_cast<int>(group.size())});
  for (Parameter& parameter : group) {
    parameter.bucket = bucket;
    if (parameter.global_shape.rank() < 2) buckets_[static_cast<std::size_t>(bucket)].only_matrices = false;
    parameters_.push_back(std::move(parameter));
  }
  return first;
}

void ParameterStore::lay_out() {
  for (std::size_t i = 0; i < buckets_.size(); ++i) lay_out(buckets_[i], static_cast<int>(i));
}

void ParameterStore::lay_out(ParameterBucket& bucket, int index) {
  bucket.begin = flat_size_;
  for (const Group& group : groups_) {
    if (parameters_[static_cast<std::size_t>(group.first)].bucket != index) continue;
    flat_size_ = round_up(flat_size_, alignment);
    for (int i = 0; i < group.count; ++i) {
      Parameter& parameter = parameters_[static_cast<std::size_t>(group.first + i)];
      parameter.flat_begin = flat_size_;
      flat_size_ += elements_with_padding(parameter);
    }
  }
  bucket.count = round_up(flat_size_ - bucket.begin, alignment * share_.size);
  if (bucket.by_rows && bucket.count > 0) bucket.count = share_.size * rows_of_owner(index).numel();
  flat_size_ = bucket.begin + bucket.count;
  if (!bucket.by_rows) gradient_size_ = flat_size_;
}

Shape ParameterStore::rows_of_owner(int bucket) const {
  const auto table = std::ranges::find(parameters_, bucket, &Parameter::bucket);
  VQLM_ASSERT(table != parameters_.end() && table->shape.rank() == 2);
  VQLM_ASSERT(std::ranges::count(parameters_, bucket, &Parameter::bucket) == 1);
  const std::int64_t width = table->shape[1], whole = (table->shape[0] + share_.size - 1) / share_.size;
  return {round_up(whole, alignment / std::gcd(alignment, width)), width};  // pieces keep their alignment
}

std::int64_t ParameterStore::place_masters(bool trainable) {
  std::int64_t count = 0;
  for (ParameterBucket& bucket : buckets_) {
    bucket.masters_begin = bucket.begin;
    bucket.masters_count = bucket.count;
    if (backend_.activation_dtype() != DType::f32 && bucket.only_matrices) {
      bucket.masters_count = trainable ? bucket.count / share_.size : 0;
      bucket.masters_begin += share_.rank * bucket.masters_count;
    }
    count += bucket.masters_count;
  }
  whole_ = count == flat_size_;
  return count;
}

void ParameterStore::allocate(bool trainable) {
  lay_out();
  const std::int64_t masters = place_masters(trainable);
  values_ = backend_.allocate(static_cast<std::size_t>(masters) * sizeof(float), MemoryUse::parameters);
  backend_.fill(values_.view({masters}), 0.0f);
  if (const DType a = backend_.activation_dtype(); a != DType::f32) {
    rounded_ = backend_.allocate(static_cast<std::size_t>(flat_size_) * size_of(a), MemoryUse::parameters);
    backend_.fill(flat_rounded(), 0.0f);
  }
  if (!trainable) return;
  find_zeroed_ranges();
  gradients_ = backend_.allocate(static_cast<std::size_t>(gradient_size_) * sizeof(float), MemoryUse::gradients);
}

void ParameterStore::find_zeroed_ranges() {
  // Parameters lie in the flat buffers in another order than that of their ids.
  std::vector<FlatRange> products;
  for (const Parameter& p : parameters_) {
    if (p.gradient_start == GradientStart::product) products.push_back({p.flat_begin, elements_with_padding(p)});
  }
  products.push_back({gradient_size_, 0});
  std::ranges::sort(products, {}, &FlatRange::begin);
  std::int64_t end = 0;  // of the last product
  for (const FlatRange& product : products) {
    if (product.begin > end) zeroed_.push_back({end, product.begin - end});
    end = product.begin + product.count;
  }
}

void ParameterStore::begin_gradients() {
  ++step_;
  for (const FlatRange& range : zeroed_) backend_.fill(flat_gradients().range(range.begin, range.count), 0.0f);
  for (std::size_t id = 0; id < parameters_.size(); ++id) {
    if (parameters_[id].gradient_start == GradientStart::product) undefined_.insert(static_cast<ParameterId>(id));
  }
}

ParameterStore::ProductGradient ParameterStore::product_gradient(ParameterId first, int count) {
  bool overwrites = false;
  for (ParameterId id = first; id < first + count; ++id) {
    const bool undefined = undefined_.erase(id) > 0;
    VQLM_ASSERT(id == first || undefined == overwrites);
    overwrites = undefined;
  }
  const Tensor gradient = stacked_gradient(first, count);
  return {count == 1 ? padded(gradient, first) : gradient, overwrites ? Accumulate::no : Accumulate::yes};
}

void ParameterStore::initialize(std::uint64_t seed) {
  std::vector<float> slice;
  for (std::size_t id = 0; id < parameters_.size(); ++id) {
    const Parameter& p = parameters_[id];
    slice.assign(static_cast<std::size_t>(p.shape.numel()), p.init.value);
    if (p.init.stddev != 0) {
      const Philox normal(seed, p.name);
      for_each_run(p, [&](std::int64_t local, std::int64_t global, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) {
          slice[static_cast<std::size_t>(local + i)] +=
              p.init.stddev * normal.normal(static_cast<std::uint64_t>(global + i));
        }
      });
    }
    set_slice(static_cast<ParameterId>(id), slice);
  }
}

void ParameterStore::set_from_whole(ParameterId id, const std::vector<float>& data) {
  const Parameter& p = parameters_[static_cast<std::size_t>(id)];
  VQLM_ASSERT(static_cast<std::int64_t>(data.size()) == p.global_shape.numel());
  std::vector<float> slice(static_cast<std::size_t>(p.shape.numel()));
  for_each_run(p, [&](std::int64_t local, std::int64_t global, std::int64_t count) {
    std::copy_n(data.begin() + global, count, slice.begin() + local);
  });
  set_slice(id, slice);
}

void ParameterStore::set_slice(ParameterId id, const std::vector<float>& slice) {
  const Parameter& p = parameters_[static_cast<std::size_t>(id)];
  VQLM_ASSERT(static_cast<std::int64_t>(slice.size()) == p.shape.numel());
  const ParameterBucket& bucket = buckets_[static_cast<std::size_t>(p.bucket)];
  const std::int64_t end = p.flat_begin + p.shape.numel();
  const std::int64_t begin_here = std::max(p.flat_begin, bucket.masters_begin);
  const std::int64_t end_here = std::min(end, bucket.masters_begin + bucket.masters_count);
  if (begin_here < end_here) {
    backend_.copy_from_host(masters(begin_here, end_here - begin_here), slice.data() + (begin_here - p.flat_begin));
  }
  if (has_masters(p.flat_begin, p.shape.numel())) return round_values(p.flat_begin, p.shape.numel());
  // Piece by piece, since there is no place for the whole in f32.
  constexpr std::int64_t most = std::int64_t{1} << 20;
  const Buffer staging = backend_.allocate(most * sizeof(float), MemoryUse::workspace);
  for (std::int64_t begin = p.flat_begin; begin < end; begin += most) {
    const std::int64_t count = std::min(most, end - begin);
    const Tensor piece = staging.view({count});
    backend_.copy_from_host(piece, slice.data() + (begin - p.flat_begin));
    backend_.round_to_activation(flat_rounded().range(begin, count), piece);
  }
}

void ParameterStore::round_values(std::int64_t begin, std::int64_t count) {
  if (const Tensor rounded = flat_rounded()) {
    backend_.round_to_activation(rounded.range(begin, count), masters(begin, count));
  }
}

std::int64_t ParameterStore::global_count() const {
  std::int64_t count = 0;
  for (const Parameter& p : parameters_) {
    if (p.rule != UpdateRule::moving_average) count += p.global_shape.numel();
  }
  return count;
}

std::int64_t ParameterStore::global_count(ParameterId first, int count) const {
  std::int64_t elements = 0;
  for (int i = 0; i < count; ++i) elements += parameters_[static_cast<std::size_t>(first + i)].global_shape.numel();
  return elements;
}

Tensor ParameterStore::flat(const Buffer& buffer, std::int64_t size, DType dtype) const {
  return buffer.data() == nullptr ? Tensor{} : buffer.view({size}, dtype);
}

bool ParameterStore::is_stale(ParameterId id) const {
  return buckets_[static_cast<std::size_t>(parameters_[static_cast<std::size_t>(id)].bucket)].stale;
}

Tensor ParameterStore::flat_values() const {
  VQLM_ASSERT(std::ranges::none_of(buckets_, &ParameterBucket::stale));
  return masters(0, flat_size_);
}

Tensor ParameterStore::fused_operand(ParameterId first, int count) const {
  VQLM_ASSERT(!is_stale(first));
  const bool matrix = parameters_[static_cast<std::size_t>(first)].global_shape.rank() >= 2;
  const auto [begin, shape] = stacked(first, count);
  const Tensor rounded = flat_rounded();
  return (matrix && rounded ? rounded.range(begin, shape.numel()) : masters(begin, shape.numel())).view(shape);
}

Tensor ParameterStore::stacked_gradient(ParameterId first, int count) const {
  const Tensor gradients = flat_gradients();
  if (!gradients) return {};
  const auto [begin, shape] = stacked(first, count);
  return gradients.range(begin, shape.numel()).view(shape);
}

Tensor ParameterStore::value(ParameterId id) const {
  VQLM_ASSERT(!is_stale(id));
  const Parameter& p = parameters_[static_cast<std::size_t>(id)];
  return masters(p.flat_begin, p.shape.numel()).view(p.shape);
}

const ParameterBucket& ParameterStore::bucket_at(std::int64_t begin) const {
  const auto next = std::ranges::upper_bound(buckets_, begin, {}, &ParameterBucket::begin);
  VQLM_ASSERT(next != buckets_.begin());
  return *(next - 1);
}

bool ParameterStore::has_masters(std::int64_t begin, std::int64_t count) const {
  if (whole_ || count == 0) return true;
  const ParameterBucket& bucket = bucket_at(begin);
  return begin >= bucket.masters_begin && begin + count <= bucket.masters_begin + bucket.masters_count;
}

Tensor ParameterStore::masters(std::int64_t begin, std::int64_t count) const {
  VQLM_ASSERT(has_masters(begin, count));
  std::int64_t place = begin;
  if (!whole_) {
    const ParameterBucket& bucket = bucket_at(begin);
    place = begin - bucket.masters_begin;
    for (const ParameterBucket* before = buckets_.data(); before != &bucket; ++before) place += before->masters_count;
  }
  return values_.view({place + count}).range(place, count);
}

ParameterStore::Stack ParameterStore::stacked(ParameterId first, int count) const {
  const Parameter& head = parameters_[static_cast<std::size_t>(first)];
  Shape shape = head.shape;
  std::int64_t end = head.flat_begin + head.shape.numel();
  for (int i = 1; i < count; ++i) {
    const Parameter& next = parameters_[static_cast<std::size_t>(first + i)];
    VQLM_ASSERT(next.flat_begin == end && next.shape.rank() == shape.rank());
    shape.set(0, shape[0] + next.shape[0]);
    end += next.shape.numel();
  }
  return {head.flat_begin, shape};
}

Tensor ParameterStore::padded(Tensor slice, ParameterId id) const {
  const std::int64_t rows = parameters_[static_cast<std::size_t>(id)].padded_rows;
  if (!slice || rows == 0) return slice;
  Shape shape = slice.shape();
  shape.set(0, rows);
  return Tensor(slice.data(), slice.dtype(), shape);
}

}  // namespace vqlm
