#include "core/model/head/code_map.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {
namespace {

CodeMap empty_map(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes) {
  check_code_map_sizes(vocab_size, clusters, groups, codes);
  CodeMap map;
  map.vocab_size = vocab_size;
  map.clusters = clusters;
  map.groups = groups;
  map.codes = codes;
  map.cluster_of_token.resize(static_cast<std::size_t>(vocab_size));
  map.member_codes.resize(static_cast<std::size_t>(vocab_size) * static_cast<std::size_t>(groups));
  return map;
}

/// Cuts tokens in the given order into K blocks whose sizes are equal to within one.
void cut_into_clusters(CodeMap& map, const std::vector<std::int32_t>& order) {
  for (std::int64_t place = 0; place < map.vocab_size; ++place) {
    const auto token = static_cast<std::size_t>(order[static_cast<std::size_t>(place)]);
    map.cluster_of_token[token] = static_cast<std::int32_t>(place * map.clusters / map.vocab_size);
  }
}

void draw_codes(CodeMap& map, std::uint64_t seed) {
  const Philox rng(seed, "code_map.member_codes");
  for (std::size_t i = 0; i < map.member_codes.size(); ++i) {
    map.member_codes[i] = static_cast<std::uint8_t>(rng.below(i, static_cast<std::uint64_t>(map.codes)));
  }
}

std::vector<std::int32_t> tokens_in_order(std::int64_t vocab_size) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(vocab_size));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

}  // namespace

MemberOrder::MemberOrder(const std::vector<std::int32_t>& cluster_of_token, std::int64_t clusters)
    : members(cluster_of_token.size()), begin(static_cast<std::size_t>(clusters) + 1, 0) {
  for (const std::int32_t cluster : cluster_of_token) ++begin[static_cast<std::size_t>(cluster) + 1];
  for (std::size_t k = 1; k < begin.size(); ++k) begin[k] += begin[k - 1];
  std::vector<std::int32_t> next(begin.begin(), begin.end() - 1);
  for (std::size_t token = 0; token < cluster_of_token.size(); ++token) {
    const auto place = static_cast<std::size_t>(next[static_cast<std::size_t>(cluster_of_token[token])]++);
    members[place] = static_cast<std::int32_t>(token);
  }
}

void check_code_map_sizes(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes) {
  if (clusters < 1 || clusters > vocab_size) {
    throw UsageError(
        fmt::format("head.clusters = {}: it must be 1 to the {} tokens of the vocabulary", clusters, vocab_size));
  }
  if (groups < 0) throw UsageError(fmt::format("head.groups = {}: it must be 0 or more", groups));
  if (groups > 0 && (codes < 1 || codes > 256)) {
    throw UsageError(fmt::format("head.codes = {}: it must be 1 to 256, a code is stored in a byte", codes));
  }
  if (groups == 0 && codes != 0) {
    throw UsageError(fmt::format("head.codes = {}: it must be 0 where head.groups = 0", codes));
  }
}

void CodeMap::validate(const std::string& origin) const {
  try {
    check_code_map_sizes(vocab_size, clusters, groups, codes);
  } catch (const UsageError& error) {
    throw Error(fmt::format("{}: {}", origin, error.what()));
  }
  const auto tokens = static_cast<std::size_t>(vocab_size);
  if (cluster_of_token.size() != tokens) {
    throw Error(
        fmt::format("{}: clusters for {} tokens; the vocabulary has {}", origin, cluster_of_token.size(), vocab_size));
  }
  if (member_codes.size() != tokens * static_cast<std::size_t>(groups)) {
    throw Error(fmt::format("{}: {} member codes; {} tokens with {} groups need {}", origin, member_codes.size(),
                            vocab_size, groups, tokens * static_cast<std::size_t>(groups)));
  }
  std::vector<bool> has_member(static_cast<std::size_t>(clusters), false);
  for (std::size_t token = 0; token < tokens; ++token) {
    const std::int32_t cluster = cluster_of_token[token];
    if (cluster < 0 || cluster >= clusters) {
      throw Error(
          fmt::format("{}: token {} is in cluster {}; it must be in [0, {})", origin, token, cluster, clusters));
    }
    has_member[static_cast<std::size_t>(cluster)] = true;
  }
  if (const auto empty = std::find(has_member.begin(), has_member.end(), false); empty != has_member.end()) {
    throw Error(fmt::format("{}: cluster {} has no member; every cluster needs at least one token", origin,
                            empty - has_member.begin()));
  }
  const auto wrong =
      std::find_if(member_codes.begin(), member_codes.end(), [&](std::uint8_t code) { return code >= codes; });
  if (wrong != member_codes.end()) {
    const std::ptrdiff_t at = wrong - member_codes.begin();
    throw Error(fmt::format("{}: token {} has code {} in group {}; it must be below {}", origin, at / groups, *wrong,
                            at % groups, codes));
  }
}

CodeMap make_random_map(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes, std::uint64_t seed) {
  CodeMap map = empty_map(vocab_size, clusters, groups, codes);
  std::vector<std::int32_t> order = tokens_in_order(vocab_size);
  const Philox rng(seed, "code_map.clusters");
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i, i)]);
  cut_into_clusters(map, order);
  draw_codes(map, seed);
  map.provenance = fmt::format("random: seed {}", seed);
  return map;
}

CodeMap make_frequency_map(const std::vector<std::int64_t>& counts, std::int64_t clusters, int groups, int codes,
                           std::uint64_t seed) {
  CodeMap map = empty_map(static_cast<std::int64_t>(counts.size()), clusters, groups, codes);
  cut_into_clusters(map, most_frequent_tokens(counts, map.vocab_size));
  draw_codes(map, seed);
  map.counted_tokens = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  map.provenance = fmt::format("frequency: {} counted tokens, seed {}", map.counted_tokens, seed);
  return map;
}

CodeMap make_contiguous_map(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes, std::uint64_t seed) {
  CodeMap map = empty_map(vocab_size, clusters, groups, codes);
  cut_into_clusters(map, tokens_in_order(vocab_size));
  draw_codes(map, seed);
  map.provenance = fmt::format("contiguous: seed {}", seed);
  return map;
}

std::vector<std::int32_t> most_frequent_tokens(const std::vector<std::int64_t>& counts, std::int64_t n) {
  VQLM_ASSERT(n >= 0 && n <= static_cast<std::int64_t>(counts.size()));
  std::vector<std::int32_t> order = tokens_in_order(static_cast<std::int64_t>(counts.size()));
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(n));
  return order;
}

CodeMap with_own_clusters(const CodeMap& rest, const std::vector<std::int32_t>& own) {
  if (own.empty()) return rest;
  const auto n = static_cast<std::int64_t>(own.size());
  CodeMap map = empty_map(rest.vocab_size + n, rest.clusters + n, rest.groups, rest.codes);
  constexpr std::int32_t none = -1;
  std::fill(map.cluster_of_token.begin(), map.cluster_of_token.end(), none);
  for (std::size_t i = 0; i < own.size(); ++i) {
    map.cluster_of_token[static_cast<std::size_t>(own[i])] = static_cast<std::int32_t>(i);
  }
  const auto groups = static_cast<std::size_t>(rest.groups);
  std::size_t row = 0;
  for (std::size_t token = 0; token < map.cluster_of_token.size(); ++token) {
    if (map.cluster_of_token[token] != none) continue;
    map.cluster_of_token[token] = rest.cluster_of_token[row] + static_cast<std::int32_t>(n);
    std::copy_n(rest.member_codes.data() + row * groups, groups, map.member_codes.data() + token * groups);
    ++row;
  }
  map.provenance = fmt::format("{}; the {} most frequent tokens have clusters of their own", rest.provenance, n);
  map.counted_tokens = rest.counted_tokens;
  return map;
}

std::vector<float> log_unigram(const std::vector<std::int64_t>& counts) {
  const double total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})) +
                       static_cast<double>(counts.size());
  std::vector<float> bias(counts.size());
  for (std::size_t v = 0; v < counts.size(); ++v) {
    bias[v] = static_cast<float>(std::log((static_cast<double>(counts[v]) + 1) / total));
  }
  return bias;
}

}  // namespace vqlm
