#include "train/evaluator.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "train/host_collectives.h"

namespace vqlm {

Evaluator::Evaluator(Backend& backend, const ProcessGrid& grid, Transformer& model, const ShardSet& shards,
                     std::int64_t max_tokens, const CodeMap* map)
    : backend_(backend), grid_(grid), model_(model), shards_(shards), map_(map) {
  const auto total = static_cast<std::int64_t>(shards_.total_tokens());
  if (total < 2) {
    throw Error(fmt::format("{}: {} tokens, but an evaluation needs at least 2; name larger held-out shards",
                            shards_.glob(), total));
  }
  predicted_ = total - 1;
  if (max_tokens > 0) {
    const std::int64_t t = model.batch().seq_len;
    predicted_ = std::min(predicted_, (max_tokens + t - 1) / t * t);
  }
  documents_ = shards_.documents(1, static_cast<std::uint64_t>(predicted_) + 1);
  const auto rows = static_cast<std::size_t>(model.batch().rows());
  tokens_.resize(rows);
  targets_.resize(rows);
  nll_.resize(static_cast<std::size_t>(model.local_rows()));
  id_storage_ = backend.allocate(2 * rows * sizeof(std::int32_t), MemoryUse::workspace);
  nll_storage_ = backend.allocate(nll_.size() * sizeof(float), MemoryUse::workspace);
}

Evaluation Evaluator::run() {
  const auto begin = std::chrono::steady_clock::now();
  const std::int64_t t = model_.batch().seq_len;
  const std::int64_t samples = (predicted_ + t - 1) / t;
  const std::int64_t stride = model_.batch().batch * grid_.data_size();
  Tally tally;
  tally.document_nll.assign(documents_.size(), 0.0);
  tally.document_tokens.assign(documents_.size(), 0.0);
  if (map_ != nullptr) tally.code_tokens.assign(static_cast<std::size_t>(map_->clusters), 0.0);

  const std::int64_t rows = model_.batch().rows();
  const Tensor tokens = id_storage_.view({2 * rows}, DType::i32).range(0, rows);
  const Tensor targets = id_storage_.view({2 * rows}, DType::i32).range(rows, rows);
  const Tensor nll = nll_storage_.view({model_.local_rows()});
  for (std::int64_t first = model_.batch().batch * grid_.data_rank(); first < samples; first += stride) {
    load(first);
    backend_.copy_from_host(tokens, tokens_.data());
    backend_.copy_from_host(targets, targets_.data());
    model_.evaluate(nll, tokens, targets);
    backend_.copy_to_host(nll_.data(), nll);
    add_rows(first, tally);
  }
  sum_over(backend_, grid_.world(), tally.document_nll);
  sum_over(backend_, grid_.world(), tally.document_tokens);
  sum_over(backend_, grid_.world(), tally.code_tokens);
  Evaluation result = summarize(tally);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

void Evaluator::load(std::int64_t first_sample) {
  const std::int64_t t = model_.batch().seq_len;
  const std::int64_t begin = first_sample * t;
  // Inputs begin .. end - 1, targets begin + 1 .. end; rows beyond the stream get token 0 and no target.
  const std::int64_t end = std::min(begin + model_.batch().rows(), predicted_);
  std::vector<std::int32_t> stream(static_cast<std::size_t>(end - begin) + 1);
  shards_.read(static_cast<std::uint64_t>(begin), stream);
  std::fill(tokens_.begin(), tokens_.end(), 0);
  std::fill(targets_.begin(), targets_.end(), -1);
  std::copy(stream.begin(), stream.end() - 1, tokens_.begin());
  std::copy(stream.begin() + 1, stream.end(), targets_.begin());
}

void Evaluator::add_rows(std::int64_t first_sample, Tally& tally) {
  const std::int64_t first_row = grid_.tensor_rank() * model_.local_rows();
  const std::int64_t first_place =
      first_sample * model_.batch().seq_len + first_row + 1;  // of the first target
  auto document =
      std::upper_bound(documents_.begin(), documents_.end(), static_cast<std::uint64_t>(first_place),
                       [](std::uint64_t place, const ShardSet::Document& d) { return place < d.end; });
  for (std::size_t i = 0; i < nll_.size(); ++i) {
    const std::int32_t target = targets_[static_cast<std::size_t>(first_row) + i];
    if (target < 0) break;
    while (static_cast<std::uint64_t>(first_place) + i >= document->end) ++document;
    const auto index = static_cast<std::size_t>(document - documents_.begin());
    tally.document_nll[index] += static_cast<double>(nll_[i]);
    tally.document_tokens[index] += 1;
    if (map_ != nullptr) {
      tally.code_tokens[static_cast<std::size_t>(map_->cluster_of_token[static_cast<std::size_t>(target)])] +=
          1;
    }
  }
}

Evaluation Evaluator::summarize(const Tally& tally) const {
  Evaluation result;
  double nll = 0;
  double tokens = 0;
  double bytes = 0;
  for (std::size_t i = 0; i < documents_.size(); ++i) {
    nll += tally.document_nll[i];
    tokens += tally.document_tokens[i];
    if (tally.document_tokens[i] > 0) ++result.documents;
    // A document cut short counts with its share of the bytes. The stream's first token is never predicted; its document
    // still counts whole.
    const double all =
        static_cast<double>(documents_[i].end - std::max<std::uint64_t>(documents_[i].begin, 1));
    if (all > 0) bytes += static_cast<double>(documents_[i].text_bytes) * tally.document_tokens[i] / all;
  }
  result.tokens = static_cast<std::int64_t>(tokens);
  result.bytes = static_cast<std::int64_t>(std::llround(bytes));
  result.nll = nll / tokens;
  result.perplexity = std::exp(result.nll);
  result.bits_per_byte = bytes > 0 ? nll / std::log(2.0) / bytes : 0.0;

  // Ratio estimator: the mean loss is sum(nll_i) / sum(tokens_i) over documents i drawn at random (Cochran, Sampling
  // Techniques, 6.4).
  double squares = 0;
  for (std::size_t i = 0; i < documents_.size(); ++i) {
    const double residual = tally.document_nll[i] - result.nll * tally.document_tokens[i];
    squares += residual * residual;
  }
  const double n = static_cast<double>(result.documents);
  const double deviation = n > 1 ? std::sqrt(squares * n / (n - 1)) / tokens : 0.0;
  result.nll_ci95[0] = result.nll - 1.96 * deviation;
  result.nll_ci95[1] = result.nll + 1.96 * deviation;

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
  return result;
}

}  // namespace vqlm
