#include "train/config/config_head_check.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"

namespace vqlm {
namespace {

/// The means are added to codes that learn by gradient.
void check_member_mean(const HeadConfig& head) {
  if (!head.member_mean) return;
  if (head.members != MemberVectors::embedding) {
    throw UsageError(
        "head.member_mean = true with head.members = \"codes\": the mean is that of embedding rows; set "
        "head.members = \"embedding\" or member_mean = false");
  }
  if (head.learning == CodebookLearning::ema) {
    throw UsageError(
        "head.member_mean = true with head.learning = \"ema\": codes that are averages of hidden states leave nothing "
        "for the mean to add; set head.learning = \"gradient\" or member_mean = false");
  }
}

}  // namespace

std::int64_t largest_divisor(std::int64_t number, std::int64_t at_most) {
  std::int64_t divisor = std::min(number, at_most);
  while (number % divisor != 0) --divisor;
  return divisor;
}

/// Members that are rows of the embedding need no codes, so that their map has none: groups = 0.
void resolve_head(Config& config) {
  HeadConfig& head = config.head;
  if (head.members == MemberVectors::codes) return;
  head.groups = 0;
}

void check_head(const Config& config) {
  const HeadConfig& head = config.head;
  if (head.kind == HeadKind::dense && head.learning == CodebookLearning::ema) {
    throw UsageError(
        "head.learning = \"ema\" with head.kind = \"dense\": a dense head has no codes to average; set "
        "head.kind = \"vq\" or head.learning = \"gradient\"");
  }
  if (head.kind == HeadKind::dense && head.members == MemberVectors::embedding) {
    throw UsageError(
        "head.members = \"embedding\" with head.kind = \"dense\": a dense head has no clusters whose members to score; "
        "set head.kind = \"vq\", or model.tie_embeddings = true for a dense head that shares the embedding");
  }
  if (head.kind == HeadKind::dense && head.member_mean) {
    throw UsageError(
        "head.member_mean = true with head.kind = \"dense\": a dense head has no clusters; set head.kind = \"vq\" or "
        "member_mean = false");
  }
  if (head.kind == HeadKind::dense && head.input_codes) {
    throw UsageError(
        "head.input_codes = true with head.kind = \"dense\": a dense head has no clusters; set head.kind = \"vq\" or "
        "input_codes = false");
  }
  if (head.kind == HeadKind::dense) return;
  if (config.model.tie_embeddings) {
    throw UsageError(
        "model.tie_embeddings = true with head.kind = \"vq\": the VQ head has no vocabulary matrix to tie; set "
        "tie_embeddings = false or head.kind = \"dense\"");
  }
  if (head.clusters > config.model.vocab_size) {
    throw UsageError(
        fmt::format("head.clusters = {} but the vocabulary has {} tokens, and every cluster needs one: "
                    "choose clusters <= {}",
                    head.clusters, config.model.vocab_size, config.model.vocab_size));
  }
  if (head.own_tokens > 0 && head.own_tokens >= head.clusters) {
    throw UsageError(
        fmt::format("head.own_tokens = {} of head.clusters = {}: at least one cluster must be left for the other "
                    "tokens: choose own_tokens <= {} or more clusters",
                    head.own_tokens, head.clusters, head.clusters - 1));
  }
  check_member_mean(head);
  if (head.groups > 0 && config.model.d_model % head.groups != 0) {
    throw UsageError(fmt::format("head.groups = {} does not divide model.d_model = {}: choose groups = {}", head.groups,
                                 config.model.d_model, largest_divisor(config.model.d_model, head.groups)));
  }
}

}  // namespace vqlm
