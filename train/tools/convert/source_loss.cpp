#include "train/tools/convert/source_loss.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "core/task_progress.h"
#include "data/shards/batch_loader.h"
#include "dist/process_grid.h"
#include "train/models/loaded_model.h"

namespace vqlm {
namespace {

constexpr std::int64_t batch_rows = 8;

/// A tensor of activations (f32 or bf16) as f32 in host memory.
std::vector<float> to_host(Backend& backend, Tensor x) {
  std::vector<float> values(static_cast<std::size_t>(x.numel()));
  if (x.dtype() == DType::f32) {
    backend.copy_to_host(values.data(), x);
    return values;
  }
  std::vector<std::uint16_t> halves(values.size());
  backend.copy_to_host(halves.data(), x);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    values[i] = std::bit_cast<float>(std::uint32_t{halves[i]} << 16);  // bf16 is the upper half of an f32
  }
  return values;
}

}  // namespace

TextParts split_text(std::uint64_t total_tokens, std::int64_t seq_len, std::int64_t eval_tokens,
                     std::int64_t fit_tokens) {
  const auto samples_of = [&](std::int64_t tokens) { return (tokens + seq_len - 1) / seq_len; };
  const std::int64_t targets = static_cast<std::int64_t>(total_tokens) - 1;
  const std::int64_t samples = samples_of(targets);
  const std::int64_t left = std::max(samples - samples_of(fit_tokens), (samples + 1) / 2);
  TextParts parts;
  parts.eval_samples = std::min(samples_of(eval_tokens), fit_tokens > 0 ? left : samples);
  parts.fit_samples = std::min(samples_of(fit_tokens), samples - parts.eval_samples);
  const std::int64_t first = parts.eval_samples * seq_len;
  parts.fit_tokens = std::max<std::int64_t>(0, std::min(targets - first, parts.fit_samples * seq_len));
  return parts;
}

double SourceLoss::perplexity() const {
  return std::exp(nll);
}

SourceLoss measure_loss(const ModelSource& source, Backend& backend, const ShardSet& shards,
                        const SourceLossOptions& options) {
  const ProcessGrid alone(backend);
  const std::int64_t seq_len = options.seq_len;
  const LoadedModel loaded = load_model(source, backend, alone.tensor(), {batch_rows, seq_len});
  const std::int64_t end = options.samples == 0 ? 0 : options.first_sample + options.samples;
  EvalSamples samples(shards, {.seq_len = seq_len, .rows = batch_rows, .max_samples = static_cast<std::uint64_t>(end)});
  const std::int64_t first_batch = options.first_sample / batch_rows;
  VQLM_ASSERT(first_batch < samples.batches());
  const std::int64_t rows = batch_rows * seq_len;
  const auto d = static_cast<std::size_t>(source.model().d_model);
  const Buffer id_storage =
      backend.allocate(2 * static_cast<std::size_t>(rows) * sizeof(std::int32_t), MemoryUse::workspace);
  const Buffer nll_storage = backend.allocate(static_cast<std::size_t>(rows) * sizeof(float), MemoryUse::workspace);
  const Tensor tokens = id_storage.view({2 * rows}, DType::i32).range(0, rows);
  const Tensor targets = id_storage.view({2 * rows}, DType::i32).range(rows, rows);
  const Tensor nll = nll_storage.view({rows});

  double sum = 0;
  std::vector<double> hidden_sum(d, 0);
  std::vector<float> losses(static_cast<std::size_t>(rows));
  SourceLoss result;
  result.hidden.dims = source.model().d_model;
  TaskProgress progress("measuring the loss on the text");
  for (std::int64_t number = first_batch; number < samples.batches(); ++number) {
    progress.set(number - first_batch, samples.batches() - first_batch);
    const Batch batch = samples.batch(number);
    backend.copy_from_host(tokens, batch.tokens.data());
    backend.copy_from_host(targets, batch.targets.data());
    loaded.transformer->evaluate(nll, tokens, targets);
    backend.copy_to_host(losses.data(), nll);
    const std::vector<float> hidden = to_host(backend, loaded.transformer->hidden());
    // Samples of this batch that come before the first one.
    const std::int64_t before = std::max<std::int64_t>(0, options.first_sample - number * batch_rows);
    for (auto row = static_cast<std::size_t>(before * seq_len); row < losses.size(); ++row) {
      if (batch.targets[row] < 0) continue;
      sum += static_cast<double>(losses[row]);
      ++result.tokens;
      for (std::size_t i = 0; i < d; ++i) hidden_sum[i] += static_cast<double>(hidden[row * d + i]);
      if (options.keep_hidden == KeepHidden::no) continue;
      const auto state = hidden.begin() + static_cast<std::ptrdiff_t>(row * d);
      result.hidden.values.insert(result.hidden.values.end(), state, state + static_cast<std::ptrdiff_t>(d));
      ++result.hidden.rows;
    }
  }
  const auto count = static_cast<double>(result.tokens);
  result.nll = sum / count;
  for (const double total : hidden_sum) result.mean_hidden.push_back(static_cast<float>(total / count));
  return result;
}

}  // namespace vqlm
