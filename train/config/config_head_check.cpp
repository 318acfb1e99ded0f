#include "train/config/config_head_check.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"

namespace vqlm {
namespace {

/// The divisor of d nearest to `rank` that `parts` divides (parts divides d); the larger one of two.
std::int64_t nearest_shared_rank(std::int64_t d, std::int64_t rank, std::int64_t parts) {
  std::int64_t nearest = d;
  for (std::int64_t r = d; r >= parts; r -= parts) {
    if (d % r == 0 && std::abs(r - rank) < std::abs(nearest - rank)) nearest = r;
  }
  return nearest;
}

/// Every (d / r)-th column of the embedding, as many of them on each tensor rank.
void check_member_rank(const Config& config) {
  const std::int64_t d = config.model.d_model, rank = config.head.member_rank;
  if (d % rank != 0) {
    throw UsageError(
        fmt::format("head.member_rank = {} does not divide model.d_model = {}: choose member_rank = {}", rank,
                    d, largest_divisor(d, rank)));
  }
  if (rank % config.parallel.tensor != 0) {
    throw UsageError(
        fmt::format("head.member_rank = {} does not divide by parallel.tensor = {}, whose ranks share the "
                    "embedding's columns: choose member_rank = {}, or fewer tensor ranks",
                    rank, config.parallel.tensor, nearest_shared_rank(d, rank, config.parallel.tensor)));
  }
}

/// The means are as wide as the codes, and added to codes that learn by gradient.
void check_member_mean(const HeadConfig& head, std::int64_t d) {
  if (!head.member_mean) return;
  if (head.members != MemberVectors::embedding) {
    throw UsageError(
        "head.member_mean = true with head.members = \"codes\": the mean is that of embedding rows; set "
        "head.members = \"embedding\" or member_mean = false");
  }
  if (head.member_rank != d) {
    throw UsageError(
        fmt::format("head.member_mean = true with head.member_rank = {}: the mean of {} columns cannot be "
                    "added to codes of model.d_model = {} numbers; set member_rank = 0 (all columns) or member_mean = false",
                    head.member_rank, head.member_rank, d));
  }
  if (head.learning == CodebookLearning::ema) {
    throw UsageError(
        "head.member_mean = true with head.learning = \"ema\": codes that are averages of hidden states "
        "leave "
        "nothing for the mean to add; set head.learning = \"gradient\" or member_mean = false");
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
  if (head.member_rank == 0) head.member_rank = config.model.d_model;
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
        "head.members = \"embedding\" with head.kind = \"dense\": a dense head has no clusters whose members "
        "to score; "
        "set head.kind = \"vq\", or model.tie_embeddings = true for a dense head that shares the embedding");
  }
  if (head.kind == HeadKind::dense && head.member_mean) {
    throw UsageError(
        "head.member_mean = true with head.kind = \"dense\": a dense head has no clusters; set head.kind = "
        "\"vq\" or "
        "member_mean = false");
  }
  if (head.kind == HeadKind::dense && head.input_codes) {
    throw UsageError(
        "head.input_codes = true with head.kind = \"dense\": a dense head has no clusters; set head.kind = "
        "\"vq\" or "
        "input_codes = false");
  }
  if (head.kind == HeadKind::dense) return;
  if (config.model.tie_embeddings) {
    throw UsageError(
        "model.tie_embeddings = true with head.kind = \"vq\": the VQ head has no vocabulary matrix to tie; "
        "set "
        "tie_embeddings = false or head.kind = \"dense\"");
  }
  if (head.clusters > config.model.vocab_size) {
    throw UsageError(
        fmt::format("head.clusters = {} but the vocabulary has {} tokens, and every cluster needs one: "
                    "choose clusters <= {}",
                    head.clusters, config.model.vocab_size, config.model.vocab_size));
  }
  if (head.own_tokens > 0 && head.own_tokens >= head.clusters) {
    throw UsageError(fmt::format(
        "head.own_tokens = {} of head.clusters = {}: at least one cluster must be left for the other "
        "tokens: choose own_tokens <= {} or more clusters",
        head.own_tokens, head.clusters, head.clusters - 1));
  }
  if (head.members == MemberVectors::embedding) check_member_rank(config);
  check_member_mean(head, config.model.d_model);
  if (head.groups > 0 && config.model.d_model % head.groups != 0) {
    throw UsageError(fmt::format("head.groups = {} does not divide model.d_model = {}: choose groups = {}",
                                 head.groups, config.model.d_model,
                                 largest_divisor(config.model.d_model, head.groups)));
  }
}

/// A tenth of the run between re-fits, the last one at half of it: the rest is for what follows from the last map.
void resolve_refits(Config& config) {
  HeadConfig& head = config.head;
  const std::int64_t steps = config.train.steps;
  if (head.map_is_learned() && head.learning == CodebookLearning::ema) {
    throw UsageError(
        "head.map = \"learned\" with head.learning = \"ema\": a re-fit moves codes that ema would move back "
        "to its own "
        "averages; choose head.learning = \"gradient\" or \"commitment\", or another map");
  }
  if (head.map_is_learned() && head.members == MemberVectors::embedding) {
    throw UsageError(
        "head.map = \"learned\" with head.members = \"embedding\": a re-fit carries codes over, and these "
        "members have "
        "none; choose another map, or head.members = \"codes\"");
  }
  if (head.map_is_learned() && head.input_codes) {
    throw UsageError(
        "head.map = \"learned\" with head.input_codes = true: a re-fit moves tokens to other clusters, whose "
        "input vectors "
        "they would find there; choose another map, or input_codes = false");
  }
  if (!head.map_is_learned()) {
    if (head.refit_every == 0 && head.refit_until == 0) return;
    throw UsageError(fmt::format(
        "head.refit_every = {} and head.refit_until = {} with head.kind = \"{}\", head.map = {}: "
        "only a learned map is re-fit; set both 0, or head.kind = \"vq\" and head.map = \"learned\"",
        head.refit_every, head.refit_until, head.kind == HeadKind::vq ? "vq" : "dense", head.map));
  }
  if (head.refit_every == 0) head.refit_every = std::max<std::int64_t>(1, steps / 10);
  if (head.refit_until == 0) head.refit_until = std::max<std::int64_t>(1, steps / 2);
  if (head.refit_until >= steps) {
    throw UsageError(fmt::format(
        "head.refit_until = {} of train.steps = {}: the codes must be trained after the last re-fit; "
        "choose {}",
        head.refit_until, steps,
        steps < 2 ? std::string("more steps, or head.map = \"corpus\"")
                  : fmt::format("refit_until = {} (or 0: half of the steps) or more steps", steps / 2)));
  }
  if (head.refit_every > head.refit_until) {
    throw UsageError(fmt::format(
        "head.refit_every = {} is beyond head.refit_until = {}: the map would never be re-fit; choose "
        "refit_every <= {}, or head.map = \"corpus\"",
        head.refit_every, head.refit_until, head.refit_until));
  }
}

HeadParameters head_parameters(const Config& config) {
  const HeadConfig& head = config.head;
  const std::int64_t d = config.model.d_model;
  const std::int64_t token_bias = head.bias ? config.model.vocab_size : 0;
  if (head.kind == HeadKind::dense) return {.matrices = config.model.vocab_size * d, .biases = token_bias};
  const bool projected = head.members == MemberVectors::embedding && head.member_rank < d;
  const std::int64_t members = projected ? head.member_rank : head.groups > 0 ? head.codes : 0;
  return {.matrices = (head.clusters + members) * d, .biases = head.clusters + token_bias};
}

}  // namespace vqlm
