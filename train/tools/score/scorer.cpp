#include "train/tools/score/scorer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/host_collectives.h"

namespace vqlm {
namespace {

constexpr double every_mass = 2;           // a total probability that is never reached
constexpr std::int64_t most_rows = 65535;  // of a batch: what CUDA starts at once
constexpr std::int64_t least_length = 16;  // of a row: shorter ones save nothing

/// The shortest row of T / 2^k tokens that the sequence fits into, predicted from all tokens but its last.
BatchShape shape_for(std::size_t tokens, const BatchShape& largest) {
  BatchShape shape = largest;
  const auto needed = static_cast<std::int64_t>(tokens) - 1;
  while (shape.seq_len % 2 == 0 && shape.seq_len / 2 >= std::max(needed, least_length) &&
         2 * shape.batch <= most_rows) {
    shape.seq_len /= 2;
    shape.batch *= 2;
  }
  return shape;
}

double checked(float loss) {
  if (!std::isfinite(loss))
    throw Error("the model gives no finite log-probability for a token: its weights are damaged");
  return -static_cast<double>(loss);
}

}  // namespace

Scorer::Scorer(Backend& backend, const ProcessGrid& grid, Transformer& model)
    : backend_(backend),
      grid_(grid),
      model_(model),
      largest_(model.batch()),
      ids_(
          backend.allocate(static_cast<std::size_t>(2 * largest_.rows()) * sizeof(std::int32_t), MemoryUse::workspace)),
      nll_(backend.allocate(static_cast<std::size_t>(largest_.rows()) * sizeof(float), MemoryUse::workspace)) {
  VQLM_ASSERT(grid.tensor_size() == 1);
}

std::vector<Scorer::Batch> Scorer::batches_of(std::span<const ScoredSequence* const> sequences) const {
  std::vector<std::size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return sequences[i]->tokens.size(); });
  std::vector<Batch> batches;
  for (const std::size_t i : order) {
    const BatchShape shape = shape_for(sequences[i]->tokens.size(), largest_);
    if (batches.empty() || batches.back().shape.seq_len != shape.seq_len ||
        static_cast<std::int64_t>(batches.back().sequences.size()) == shape.batch)
      batches.push_back({shape, {}});
    batches.back().sequences.push_back(i);
  }
  return batches;
}

std::vector<SequenceScore> Scorer::run(std::span<const ScoredSequence* const> sequences) {
  std::vector<SequenceScore> scores(sequences.size());
  std::vector<double> flat;  // of all ranks, zeros where another one computes
  const std::vector<Batch> batches = batches_of(sequences);
  for (std::size_t number = 0; number < batches.size(); ++number) {
    if (static_cast<int>(number % static_cast<std::size_t>(grid_.data_size())) == grid_.data_rank())
      score(batches[number], sequences, scores);
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    scores[i].log_probs.resize(sequences[i]->scored(), 0.0);
    flat.push_back(scores[i].greedy ? 1 : 0);
    flat.insert(flat.end(), scores[i].log_probs.begin(), scores[i].log_probs.end());
  }
  {
    const auto wait = grid_.world().expect_long_wait("scoring");  // ranks end at different times
    sum_over(backend_, grid_.world(), flat);
  }
  auto next = flat.begin();
  for (SequenceScore& each : scores) {
    each.greedy = *next++ > 0;
    for (double& log_prob : each.log_probs) log_prob = *next++;
  }
  return scores;
}

void Scorer::score(const Batch& batch, std::span<const ScoredSequence* const> sequences,
                   std::vector<SequenceScore>& scores) {
  const auto rows = static_cast<std::size_t>(largest_.rows()), length = static_cast<std::size_t>(batch.shape.seq_len);
  std::vector<std::int32_t> tokens(rows, 0), targets(rows, -1);
  for (std::size_t b = 0; b < batch.sequences.size(); ++b) {
    const ScoredSequence& sequence = *sequences[batch.sequences[b]];
    std::copy(sequence.tokens.begin(), sequence.tokens.end() - 1,
              tokens.begin() + static_cast<std::ptrdiff_t>(b * length));
    for (std::size_t i = sequence.first; i < sequence.tokens.size(); ++i)
      targets[b * length + i - 1] = sequence.tokens[i];
  }
  const Tensor on_device = ids_.view({2, largest_.rows()}, DType::i32);
  const Tensor nll = nll_.view({largest_.rows()});
  backend_.copy_from_host(on_device.rows(0, 1), tokens.data());
  backend_.copy_from_host(on_device.rows(1, 1), targets.data());
  model_.reshape(batch.shape);
  model_.evaluate(nll, on_device.rows(0, 1).view({largest_.rows()}), on_device.rows(1, 1).view({largest_.rows()}));
  std::vector<float> losses(rows);
  backend_.copy_to_host(losses.data(), nll);
  for (std::size_t b = 0; b < batch.sequences.size(); ++b) {
    const ScoredSequence& sequence = *sequences[batch.sequences[b]];
    SequenceScore& score = scores[batch.sequences[b]];
    const std::size_t first_row = b * length + sequence.first - 1;
    for (std::size_t i = 0; i < sequence.scored(); ++i) score.log_probs.push_back(checked(losses[first_row + i]));
    score.greedy = is_greedy(sequence, score, static_cast<std::int64_t>(first_row));
  }
}

/// The least probable token first: it most likely is not the most probable one of its place, and that decides.
bool Scorer::is_greedy(const ScoredSequence& sequence, const SequenceScore& score, std::int64_t first_row) {
  std::vector<std::size_t> order(score.log_probs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return score.log_probs[i]; });
  for (const std::size_t i : order) {
    const Tensor h = model_.hidden().rows(first_row + static_cast<std::int64_t>(i), 1);
    if (model_.head().most_probable(h, 1, every_mass).front().token != sequence.tokens[sequence.first + i])
      return false;
  }
  return true;
}

}  // namespace vqlm
