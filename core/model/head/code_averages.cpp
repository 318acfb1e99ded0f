#include "core/model/head/code_averages.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/box.h"
#include "core/tensor_arena.h"
#include "core/rng.h"

namespace vqlm {
namespace {

// A revived code starts with so many times the count that makes it dead: at 0.99 it is left alone for 69 steps even where
// none of its tokens comes, and soon follows those that do.
constexpr float revived_count = 2;

// Of the donor's numbers, so that a code is no exact copy of another.
constexpr float perturbation = 0.01f;

Parameter average(const std::string& name, Shape shape, float decay) {
  return {.name = name,
          .global_shape = shape,
          .offset = origin_of(shape),
          .shape = shape,
          .init = {},
          .decay = false,
          .rule = UpdateRule::moving_average,
          .average_decay = decay};
}

/// Random numbers of one step's revivals.
Philox stream_of_step(std::uint64_t seed, std::int64_t step, const char* what) {
  return Philox(seed, stream_of(what) + static_cast<std::uint64_t>(step));
}

}  // namespace

float code_scale(std::int64_t d) {
  return 1.0f / std::sqrt(static_cast<float>(d));
}

CodeAverages::CodeAverages(const TensorParallel& tensor, ParameterStore& parameters, int bucket, ParameterId codebook,
                           const HeadConfig& head, std::int64_t rows)
    : tensor_(tensor),
      parameters_(parameters),
      codebook_(codebook),
      decay_(head.ema_decay),
      dead_share_(head.dead_code_share) {
  const Parameter& code = parameters.parameters()[static_cast<std::size_t>(codebook)];
  VQLM_ASSERT(code.rule == UpdateRule::derived);
  const std::int64_t clusters = code.shape[0], d = code.shape[1];
  scale_ = code_scale(d);
  sums_ = parameters.add(bucket, {average("vq_head.ema_sums", {clusters, d}, decay_)});
  counts_ = parameters.add(bucket, {average("vq_head.ema_counts", {clusters}, decay_)});
  Backend& backend = tensor.backend();
  const DType a = backend.activation_dtype();
  TensorArena arena;
  arena.add(ones_, {rows, 1}, a);
  if (head.commitment > 0) arena.add(means_, {clusters, d}, DType::f32);
  if (head.commitment > 0 && a != DType::f32) arena.add(rounded_means_, {clusters, d}, a);
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  backend.fill(ones_, 1.0f);
  if (means_) backend.fill(means_, 0.0f);
}

void CodeAverages::start(const std::vector<double>& mass, std::int64_t step_tokens) {
  Backend& backend = tensor_.backend();
  const Tensor codebook = parameters_.value(codebook_);
  const std::int64_t d = codebook.extent(1);
  VQLM_ASSERT(static_cast<std::int64_t>(mass.size()) == codebook.extent(0));
  std::vector<float> sums(static_cast<std::size_t>(codebook.numel()));
  std::vector<float> counts(mass.size());
  backend.copy_to_host(sums.data(), codebook);
  for (std::size_t k = 0; k < mass.size(); ++k) {
    counts[k] = static_cast<float>(mass[k] * static_cast<double>(step_tokens));
    const auto row = sums.begin() + static_cast<std::ptrdiff_t>(k) * d;
    std::for_each(row, row + d, [&](float& x) { x *= counts[k] / scale_; });
  }
  parameters_.set_from_whole(sums_, sums);
  parameters_.set_from_whole(counts_, counts);
}

void CodeAverages::accumulate(Tensor h, Tensor clusters) {
  Backend& backend = tensor_.backend();
  backend.embedding_backward(parameters_.gradient(sums_), h, clusters, 0);
  const Tensor counts = parameters_.gradient(counts_);
  backend.embedding_backward(counts.view({counts.numel(), 1}), ones_, clusters, 0);
}

Tensor CodeAverages::means() {
  VQLM_ASSERT(means_);
  Backend& backend = tensor_.backend();
  backend.codes_from_averages(means_, parameters_.value(sums_), parameters_.value(counts_), 1.0f);
  if (!rounded_means_) return means_;
  const std::int64_t n = means_.numel();
  backend.round_to_activation(rounded_means_.view({n}), means_.view({n}));
  return rounded_means_;
}

std::int64_t CodeAverages::after_update(std::uint64_t seed, std::int64_t step) {
  const std::int64_t revived = dead_share_ > 0 ? revive(seed, step) : 0;
  tensor_.backend().codes_from_averages(parameters_.value(codebook_), parameters_.value(sums_),
                                        parameters_.value(counts_), scale_);
  const Parameter& code = parameters_.parameters()[static_cast<std::size_t>(codebook_)];
  parameters_.round_values(code.flat_begin, code.shape.numel());
  return revived;
}

// On the host: K counts are few bytes, and codes die seldom.
std::int64_t CodeAverages::revive(std::uint64_t seed, std::int64_t step) {
  Backend& backend = tensor_.backend();
  const Tensor sums = parameters_.value(sums_), all_counts = parameters_.value(counts_);
  std::vector<float> counts(static_cast<std::size_t>(all_counts.numel()));
  backend.copy_to_host(counts.data(), all_counts);
  const std::vector<RevivedCode> dead = choose_revived(counts, dead_share_, seed, step);
  if (dead.empty()) return 0;
  const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
  const auto count = static_cast<float>(static_cast<double>(revived_count * dead_share_) * mean);
  const Philox normal = stream_of_step(seed, step, "vq_head.revived");
  std::vector<float> row(static_cast<std::size_t>(sums.extent(1)));
  for (const RevivedCode& pair : dead) {
    // No donor is dead, so none is changed before it gives.
    backend.copy_to_host(row.data(), sums.rows(pair.donor, 1));
    const float factor = count / counts[static_cast<std::size_t>(pair.donor)];
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::uint64_t index = static_cast<std::uint64_t>(pair.code) * row.size() + i;
      row[i] *= factor * (1 + perturbation * normal.normal(index));
    }
    backend.copy_from_host(sums.rows(pair.code, 1), row.data());
  }
  for (const RevivedCode& pair : dead) counts[static_cast<std::size_t>(pair.code)] = count;
  backend.copy_from_host(all_counts, counts.data());
  return static_cast<std::int64_t>(dead.size());
}

std::vector<RevivedCode> choose_revived(const std::vector<float>& counts, double share, std::uint64_t seed,
                                        std::int64_t step) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  const double threshold = share * total / static_cast<double>(counts.size());
  const auto is_dead = [&](float count) { return static_cast<double>(count) < threshold; };
  // Living codes and their counts' running sums.
  std::vector<std::int64_t> living;
  std::vector<double> below;
  double sum = 0;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (is_dead(counts[k])) continue;
    sum += static_cast<double>(counts[k]);
    living.push_back(static_cast<std::int64_t>(k));
    below.push_back(sum);
  }
  const Philox uniform = stream_of_step(seed, step, "vq_head.donors");
  std::vector<RevivedCode> revived;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (!is_dead(counts[k])) continue;
    const double drawn = static_cast<double>(uniform.uniform(k)) * sum;
    const auto place = std::upper_bound(below.begin(), below.end() - 1, drawn);
    revived.push_back(
        {static_cast<std::int64_t>(k), living[static_cast<std::size_t>(place - below.begin())]});
  }
  return revived;
}

}  // namespace vqlm
