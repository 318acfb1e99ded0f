#include "train/config/config_head_check.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "train/config/enum_words.h"
#include "train/config/whole_numbers.h"

namespace vqlm {
namespace {

/// The means are added to codes that learn by gradient.
void check_learning(const VqHeadConfig& head) {
  if (!head.member_mean() || !head.averages()) return;
  throw UsageError(
      "head.learning = \"ema\" with head.member_mean = true: codes that are averages of hidden states leave nothing for "
      "the mean to add; set head.member_mean = false, or head.learning = \"gradient\"");
}

/// Hidden states that later tokens asked for would move the codes of the next one.
void check_future(const Config& config) {
  const FutureHeadsConfig& future = future_of(config.head);
  const int heads = future.heads;
  if (heads == 0) {
    if (future.weight != FutureHeadsConfig{}.weight) {
      throw UsageError(fmt::format(
          "head.future_weight = {} with head.future = 0: there are no heads whose losses it weighs; set head.future, or leave "
          "the weight out",
          future.weight));
    }
    return;
  }
  if (const auto* vq = vq_of(config.head);
      vq != nullptr && !std::holds_alternative<GradientLearningConfig>(vq->learning)) {
    throw UsageError(fmt::format(
        "head.future = {} with head.learning = \"{}\": codes that follow hidden states, or draw them, belong to the next "
        "token alone; set head.learning = \"gradient\", or head.future = 0",
        heads, word_of(static_cast<CodebookLearning>(vq->learning.index()))));
  }
  if (heads >= config.data.seq_len) {
    throw UsageError(fmt::format(
        "head.future = {} with data.seq_len = {}: no position of a sample has a token so far behind it; choose future <= {}",
        heads, config.data.seq_len, config.data.seq_len - 1));
  }
}

/// A rank above d_model adds parameters and no matrix that a smaller one could not be.
void check_rank(const LowRankHeadConfig& head, std::int64_t d_model) {
  if (head.rank >= 1 && head.rank <= d_model) return;
  throw UsageError(fmt::format(
      "head.rank = {} with model.d_model = {}: a matrix of the vocabulary has a rank of at most d_model: choose 1 to {}, or "
      "head.kind = \"dense\"",
      head.rank, d_model, d_model));
}

/// Every band has tokens.
void check_cutoffs(const AdaptiveHeadConfig& head, const ModelConfig& model) {
  if (model.tie_embeddings) {  // a file cannot say so, a caller can
    throw UsageError(
        "model.tie_embeddings = true with head.kind = \"adaptive\": tail bands are narrower than the embedding's rows; set "
        "tie_embeddings = false or head.kind = \"dense\"");
  }
  std::int64_t begin = 0;
  for (const std::int64_t cutoff : head.cutoffs) {
    if (cutoff <= begin || cutoff >= model.vocab_size) {
      throw UsageError(fmt::format(
          "head.cutoffs = {}: ranks of tokens that bands begin at, which rise from 1 to at most {}, one less than the "
          "vocabulary's {} tokens; [] takes V / 8 and V / 2, from 3 tokens on",
          whole_numbers_text(head.cutoffs), model.vocab_size - 1, model.vocab_size));
    }
    begin = cutoff;
  }
}

}  // namespace

std::int64_t largest_divisor(std::int64_t number, std::int64_t at_most) {
  std::int64_t divisor = std::min(number, at_most);
  while (number % divisor != 0) --divisor;
  return divisor;
}

void check_head(const Config& config) {
  check_future(config);
  if (const auto* low_rank = low_rank_of(config.head)) check_rank(*low_rank, config.model.d_model);
  if (const auto* adaptive = adaptive_of(config.head)) check_cutoffs(*adaptive, config.model);
  const auto* head = vq_of(config.head);
  if (head == nullptr) return;
  if (config.model.tie_embeddings) {  // a file cannot say so, a caller can
    throw UsageError(
        "model.tie_embeddings = true with head.kind = \"vq\": the VQ head has no vocabulary matrix to tie; set "
        "tie_embeddings = false or head.kind = \"dense\"");
  }
  if (head->clusters > config.model.vocab_size) {
    throw UsageError(
        fmt::format("head.clusters = {} but the vocabulary has {} tokens, and every cluster needs one: "
                    "choose clusters <= {}",
                    head->clusters, config.model.vocab_size, config.model.vocab_size));
  }
  if (head->own_tokens > 0 && head->own_tokens >= head->clusters) {
    throw UsageError(
        fmt::format("head.own_tokens = {} of head.clusters = {}: at least one cluster must be left for the other "
                    "tokens: choose own_tokens <= {} or more clusters",
                    head->own_tokens, head->clusters, head->clusters - 1));
  }
  check_learning(*head);
  if (const int groups = head->groups(); groups > 0 && config.model.d_model % groups != 0) {
    throw UsageError(fmt::format("head.groups = {} does not divide model.d_model = {}: choose groups = {}", groups,
                                 config.model.d_model, largest_divisor(config.model.d_model, groups)));
  }
}

}  // namespace vqlm
