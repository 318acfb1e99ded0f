#include "train/engine/evaluator.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/host_collectives.h"
#include "core/task_progress.h"
#include "train/engine/future_targets.h"

namespace vqlm {
namespace {

EvalSamples::Options samples_options(const ProcessGrid& grid, const BatchShape& batch, std::int64_t max_tokens) {
  return {.seq_len = batch.seq_len,
          .rows = batch.batch,
          .rank = grid.data_rank(),
          .size = grid.data_size(),
          .max_samples = static_cast<std::uint64_t>((max_tokens + batch.seq_len - 1) / batch.seq_len)};
}

}  // namespace

EvaluationBuffers::EvaluationBuffers(Backend& backend, Transformer& model)
    : ids(std::make_shared<Buffer>(backend.allocate(
          static_cast<std::size_t>((2 + model.future_heads()) * model.batch().rows()) * sizeof(std::int32_t),
          MemoryUse::workspace))),
      nll(std::make_shared<Buffer>(
          backend.allocate(static_cast<std::size_t>((1 + model.future_heads()) * model.local_rows()) * sizeof(float),
                           MemoryUse::workspace))) {}

Evaluator::Evaluator(Backend& backend, const ProcessGrid& grid, Transformer& model, const ShardSet& shards,
                     std::int64_t max_tokens, const CodeMap* map, const FrequencyBands* bands,
                     EvaluationBuffers buffers)
    : backend_(backend),
      grid_(grid),
      model_(model),
      samples_(shards, samples_options(grid, model.batch(), max_tokens)),
      map_(map),
      bands_(bands),
      buffers_(buffers ? std::move(buffers) : EvaluationBuffers(backend, model)) {
  documents_ = ShardSet(shards).documents(1, samples_.predicted_tokens() + 1);
  nll_.resize(static_cast<std::size_t>((1 + model.future_heads()) * model.local_rows()));
  if (model.head().cluster_nll()) cluster_nll_.resize(static_cast<std::size_t>(model.local_rows()));
}

void Evaluator::measure_acceptance() {
  if (model_.future() != nullptr) acceptance_.emplace(backend_, model_);
}

Evaluation Evaluator::run() {
  const auto begin = std::chrono::steady_clock::now();
  if (acceptance_) measure_acceptance();  // from nothing
  const LossParts parts = cluster_nll_.empty() ? LossParts::whole : LossParts::cluster_and_member;
  Tally tally{.document_nll = {},
              .document_tokens = {},
              .code_tokens = {},
              .bands = LossTally(bands_ != nullptr ? bands_->bands.size() : 1, parts),
              .future = LossTally(static_cast<std::size_t>(model_.future_heads()), LossParts::whole)};
  tally.document_nll.assign(documents_.size(), 0.0);
  tally.document_tokens.assign(documents_.size(), 0.0);
  if (map_ != nullptr) tally.code_tokens.assign(static_cast<std::size_t>(map_->clusters), 0.0);

  const std::int64_t rows = model_.batch().rows(), heads = 1 + model_.future_heads();
  const Tensor ids = buffers_.ids->view({1 + heads, rows}, DType::i32);
  const Tensor tokens = ids.rows(0, 1).view({rows}), targets = ids.rows(1, heads);
  const Tensor nll = buffers_.nll->view({heads, model_.local_rows()});
  std::vector<std::int32_t> future(static_cast<std::size_t>(model_.future_heads() * rows));
  TaskProgress progress("evaluating", grid_.world().rank() == 0 ? TaskProgress::Speaks::yes : TaskProgress::Speaks::no);
  for (std::int64_t number = 0; number < samples_.batches(); ++number) {
    progress.set(number, samples_.batches());
    const Batch batch = samples_.batch(number);
    backend_.copy_from_host(tokens, batch.tokens.data());
    backend_.copy_from_host(targets.rows(0, 1), batch.targets.data());
    if (!future.empty()) {
      write_future_targets(future, batch.tokens, batch.targets, model_.batch(), model_.config().document_end);
      backend_.copy_from_host(targets.rows(1, heads - 1), future.data());
      model_.evaluate(nll, tokens, targets);
    } else {
      model_.evaluate(nll.view({model_.local_rows()}), tokens, targets.view({rows}));
    }
    backend_.copy_to_host(nll_.data(), nll);
    if (!cluster_nll_.empty()) backend_.copy_to_host(cluster_nll_.data(), model_.head().cluster_nll());
    add_rows(number, batch.targets, tally);
    add_future(future, tally);
  }
  sum_over(backend_, grid_.world(), tally.document_nll);
  sum_over(backend_, grid_.world(), tally.document_tokens);
  sum_over(backend_, grid_.world(), tally.code_tokens);
  tally.bands.sum_over_ranks(backend_, grid_.world());
  tally.future.sum_over_ranks(backend_, grid_.world());
  if (acceptance_) {
    sum_over(backend_, grid_.world(), acceptance_->positions());
    sum_over(backend_, grid_.world(), acceptance_->accepted());
  }
  Evaluation result = summarize(tally);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

void Evaluator::add_rows(std::int64_t number, const std::vector<std::int32_t>& targets, Tally& tally) {
  const std::int64_t first_row = grid_.tensor_rank() * model_.local_rows();
  // Target i of this rank is token first_place + i of the stream.
  const std::int64_t first_place =
      (number * grid_.data_size() + grid_.data_rank()) * model_.batch().rows() + first_row + 1;
  auto document = std::upper_bound(documents_.begin(), documents_.end(), static_cast<std::uint64_t>(first_place),
                                   [](std::uint64_t place, const ShardSet::Document& d) { return place < d.end; });
  for (std::size_t i = 0; i < static_cast<std::size_t>(model_.local_rows()); ++i) {
    const std::int32_t target = targets[static_cast<std::size_t>(first_row) + i];
    if (target < 0) break;
    while (static_cast<std::uint64_t>(first_place) + i >= document->end) ++document;
    const auto index = static_cast<std::size_t>(document - documents_.begin());
    tally.document_nll[index] += static_cast<double>(nll_[i]);
    tally.document_tokens[index] += 1;
    const std::size_t band = bands_ != nullptr ? bands_->band_of_token[static_cast<std::size_t>(target)] : 0;
    tally.bands.add(band, nll_[i], cluster_nll_.empty() ? 0.0f : cluster_nll_[i]);
    if (map_ != nullptr) {
      tally.code_tokens[static_cast<std::size_t>(map_->cluster_of_token[static_cast<std::size_t>(target)])] += 1;
    }
  }
}

void Evaluator::add_future(const std::vector<std::int32_t>& targets, Tally& tally) {
  if (targets.empty()) return;
  const auto rows = static_cast<std::size_t>(model_.batch().rows()),
             local = static_cast<std::size_t>(model_.local_rows());
  const auto first = static_cast<std::size_t>(model_.first_row());
  for (std::size_t j = 0; j < targets.size() / rows; ++j) {
    for (std::size_t i = 0; i < local; ++i) {
      if (targets[j * rows + first + i] >= 0) tally.future.add(j, nll_[(1 + j) * local + i], 0);
    }
  }
  if (acceptance_) acceptance_->add(targets);
}

Evaluation Evaluator::summarize(const Tally& tally) {
  Evaluation result;
  double nll = 0;
  double tokens = 0;
  const std::optional<double> bytes = samples_.predicted_bytes();
  for (std::size_t i = 0; i < documents_.size(); ++i) {
    nll += tally.document_nll[i];
    tokens += tally.document_tokens[i];
    if (tally.document_tokens[i] <= 0) continue;
    ++result.documents;
    result.document_tokens.push_back(tally.document_tokens[i]);
    result.document_nll.push_back(tally.document_nll[i]);
  }
  result.tokens = static_cast<std::int64_t>(tokens);
  result.nll = nll / tokens;
  result.perplexity = std::exp(result.nll);
  if (bytes) result.bytes = std::llround(*bytes);
  if (bytes.value_or(0) > 0) result.bits_per_byte = nll / std::log(2.0) / *bytes;

  // Ratio estimator: the mean loss is sum(nll_i) / sum(tokens_i) over documents i drawn at random (Cochran, Sampling
  // Techniques, 6.4).
  double squares = 0;
  for (std::size_t i = 0; i < documents_.size(); ++i) {
    const double residual = tally.document_nll[i] - result.nll * tally.document_tokens[i];
    squares += residual * residual;
  }
  const double n = static_cast<double>(result.documents);
  if (result.documents > 1) {
    const double deviation = std::sqrt(squares * n / (n - 1)) / tokens;
    result.nll_ci95 = {result.nll - 1.96 * deviation, result.nll + 1.96 * deviation};
  }

  if (map_ != nullptr) {
    CodeUsage usage{.codes = map_->clusters};
    double entropy = 0;
    for (double count : tally.code_tokens) {
      if (count == 0) continue;
      ++usage.used;
      entropy -= count / tokens * std::log(count / tokens);
    }
    usage.perplexity = std::exp(entropy);
    result.code_usage = usage;
  }
  summarize_losses(tally.bands, result);
  summarize_future(tally, result);
  return result;
}

void Evaluator::summarize_future(const Tally& tally, Evaluation& result) {
  for (std::size_t j = 0; j < static_cast<std::size_t>(model_.future_heads()); ++j) {
    const LossMeans means = tally.future.means(j);
    result.future.push_back({.tokens = means.tokens, .nll = means.nll});
    if (acceptance_) result.future.back().acceptance = acceptance_->accepted()[j] / acceptance_->positions()[j];
  }
}

void Evaluator::summarize_losses(const LossTally& losses, Evaluation& result) const {
  const LossMeans total = losses.total();
  result.cluster_nll = total.cluster_nll;
  result.member_nll = total.member_nll;
  if (bands_ == nullptr) return;
  for (std::size_t i = 0; i < bands_->bands.size(); ++i) result.bands.push_back({bands_->bands[i], losses.means(i)});
}

}  // namespace vqlm
