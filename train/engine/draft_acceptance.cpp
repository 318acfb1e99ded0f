#include "train/engine/draft_acceptance.h"

#include <algorithm>

#include "core/error.h"

namespace vqlm {
namespace {

constexpr std::int64_t chunk_bytes = 16 << 20;

}  // namespace

DraftAcceptance::DraftAcceptance(Backend& backend, Transformer& model)
    : backend_(backend),
      model_(model),
      chunk_(std::clamp<std::int64_t>(chunk_bytes / (4 * model.config().vocab_size), 1, model.batch().rows())),
      positions_(static_cast<std::size_t>(model.future_heads()), 0.0),
      accepted_(positions_) {
  VQLM_ASSERT(model.future() != nullptr && model.local_rows() == model.batch().rows());
  log_probs_.resize(static_cast<std::size_t>(chunk_ * model.config().vocab_size));
  storage_ = backend.allocate(log_probs_.size() * sizeof(float), MemoryUse::workspace);
}

std::vector<std::int32_t> DraftAcceptance::choices(Tensor h) {
  const std::int64_t rows = h.extent(0), vocabulary = model_.config().vocab_size;
  std::vector<std::int32_t> chosen;
  chosen.reserve(static_cast<std::size_t>(rows));
  for (std::int64_t begin = 0; begin < rows; begin += chunk_) {
    const std::int64_t count = std::min(chunk_, rows - begin);
    const Tensor out = storage_.view({count, vocabulary});
    model_.head().log_probs(out, h.rows(begin, count));
    backend_.copy_to_host(log_probs_.data(), out);
    for (std::int64_t row = 0; row < count; ++row) {
      const auto first = log_probs_.begin() + row * vocabulary;
      chosen.push_back(static_cast<std::int32_t>(std::max_element(first, first + vocabulary) - first));
    }
  }
  return chosen;
}

void DraftAcceptance::add(std::span<const std::int32_t> targets) {
  const std::vector<std::int32_t> own = choices(model_.hidden());
  VQLM_ASSERT(targets.size() == own.size() * positions_.size());
  for (std::size_t j = 0; j < positions_.size(); ++j) {
    const std::vector<std::int32_t> drafts =
        choices(model_.future()->hidden(static_cast<std::int64_t>(j), model_.hidden()));
    for (std::size_t row = 0; row < own.size(); ++row) {
      if (targets[j * own.size() + row] < 0) continue;  // where there is one, row + j + 1 is of the same sequence
      ++positions_[j];
      accepted_[j] += drafts[row] == own[row + j + 1] ? 1 : 0;
    }
  }
}

}  // namespace vqlm
