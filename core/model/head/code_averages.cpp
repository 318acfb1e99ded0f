#include "core/model/head/code_averages.h"

#include <algorithm>
#include <cmath>

#include "core/box.h"
#include "core/tensor_arena.h"

namespace vqlm {
namespace {

Parameter average(const std::string& name, Shape shape, float decay) {
  return {.name = name,
          .global_shape = shape,
          .offset = origin_of(shape),
          .shape = shape,
          .init = {},
          .role = ParameterRole::table,
          .decay = false,
          .rule = UpdateRule::moving_average,
          .average_decay = decay};
}

}  // namespace

float code_scale(std::int64_t d) {
  return 1.0f / std::sqrt(static_cast<float>(d));
}

CodeAverages::CodeAverages(const TensorParallel& tensor, ParameterStore& parameters, int bucket, ParameterId codebook,
                           const EmaLearningConfig& config, std::int64_t rows)
    : tensor_(tensor), parameters_(parameters), codebook_(codebook), decay_(config.ema_decay) {
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
  if (config.commitment > 0) arena.add(means_, {clusters, d}, DType::f32);
  if (config.commitment > 0 && a != DType::f32) arena.add(rounded_means_, {clusters, d}, a);
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
  backend.run(EmbeddingBackward{.dtable = parameters_.gradient(sums_), .dout = h, .ids = clusters, .first_row = 0});
  const Tensor counts = parameters_.gradient(counts_);
  backend.run(
      EmbeddingBackward{.dtable = counts.view({counts.numel(), 1}), .dout = ones_, .ids = clusters, .first_row = 0});
}

Tensor CodeAverages::means() {
  VQLM_ASSERT(means_);
  Backend& backend = tensor_.backend();
  backend.run(CodesFromAverages{
      .codebook = means_, .sums = parameters_.value(sums_), .counts = parameters_.value(counts_), .scale = 1.0f});
  if (!rounded_means_) return means_;
  const std::int64_t n = means_.numel();
  backend.round_to_activation(rounded_means_.view({n}), means_.view({n}));
  return rounded_means_;
}

void CodeAverages::after_update() {
  tensor_.backend().run(CodesFromAverages{.codebook = parameters_.value(codebook_),
                                          .sums = parameters_.value(sums_),
                                          .counts = parameters_.value(counts_),
                                          .scale = scale_});
  const Parameter& code = parameters_.parameters()[static_cast<std::size_t>(codebook_)];
  parameters_.round_values(code.flat_begin, code.shape.numel());
}

}  // namespace vqlm
