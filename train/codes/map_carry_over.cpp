#include "train/codes/map_carry_over.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace vqlm {
namespace {

constexpr std::int32_t none = -1;

/// log(sum(exp)) for each cluster; an empty one has -infinity.
std::vector<double> log_sums(const std::vector<double>& x, const std::vector<std::int32_t>& cluster_of_token,
                             std::size_t clusters) {
  std::vector<double> highest(clusters, -std::numeric_limits<double>::infinity()), sums(clusters, 0.0);
  for (std::size_t v = 0; v < x.size(); ++v) {
    double& high = highest[static_cast<std::size_t>(cluster_of_token[v])];
    high = std::max(high, x[v]);
  }
  for (std::size_t v = 0; v < x.size(); ++v) {
    const auto k = static_cast<std::size_t>(cluster_of_token[v]);
    sums[k] += std::exp(x[v] - highest[k]);
  }
  for (std::size_t k = 0; k < clusters; ++k) sums[k] = highest[k] + std::log(sums[k]);
  return sums;
}

double log_sum(const std::vector<float>& x) {
  return log_sums(std::vector<double>(x.begin(), x.end()), std::vector<std::int32_t>(x.size(), 0), 1).front();
}

/// Sums of rows by class, with weights.
class WeightedMeans {
 public:
  WeightedMeans(std::size_t classes, std::size_t width) : width_(width), sums_(classes * width), weights_(classes) {}

  void add(std::size_t to, double weight, const double* row) {
    weights_[to] += weight;
    for (std::size_t i = 0; i < width_; ++i) sums_[to * width_ + i] += weight * row[i];
  }
  /// Row `from` becomes its mean where it has weight.
  void write(std::size_t from, float* row) const {
    if (!(weights_[from] > 0)) return;
    for (std::size_t i = 0; i < width_; ++i) row[i] = static_cast<float>(sums_[from * width_ + i] / weights_[from]);
  }

 private:
  std::size_t width_;
  std::vector<double> sums_, weights_;
};

struct Sizes {
  std::size_t vocab, clusters, groups, codes, d, width;  // width: of a group, 0 where G = 0
  Sizes(const CodeMap& map, const HeadArrays& values)
      : vocab(static_cast<std::size_t>(map.vocab_size)),
        clusters(static_cast<std::size_t>(map.clusters)),
        groups(static_cast<std::size_t>(map.groups)),
        codes(static_cast<std::size_t>(map.codes)),
        d(static_cast<std::size_t>(values.d_model)),
        width(groups > 0 ? d / groups : 0) {}
};

/// Row of the member codebook seen as (G Q, d / G).
std::size_t code_row(const CodeMap& map, std::size_t token, std::size_t group) {
  const std::size_t code = map.member_codes[token * static_cast<std::size_t>(map.groups) + group];
  return group * static_cast<std::size_t>(map.codes) + code;
}

std::size_t cluster_of(const CodeMap& map, std::size_t token) {
  return static_cast<std::size_t>(map.cluster_of_token[token]);
}

/// Rows and biases of the clusters of `next`, whose tokens bring what they had.
void carry_codebook(const CodeMap& old, const HeadArrays& values, const HeadAtZero& zero, const CodeMap& next,
                    HeadArrays& result) {
  const Sizes s(old, values);
  WeightedMeans means(s.clusters, s.d);
  std::vector<double> w(s.d);
  for (std::size_t v = 0; v < s.vocab; ++v) {
    const std::size_t j = cluster_of(old, v);
    for (std::size_t i = 0; i < s.d; ++i) {
      w[i] = static_cast<double>(values.codebook[j * s.d + i]) - zero.mean_member[j * s.d + i];
      if (s.groups == 0) continue;
      const float* const u = values.member_codebook.data() + code_row(old, v, i / s.width) * s.width;
      w[i] += static_cast<double>(u[i % s.width]);
    }
    means.add(cluster_of(next, v), std::exp(zero.log_prob[v]), w.data());
  }
  for (std::size_t k = 0; k < s.clusters; ++k) means.write(k, result.codebook.data() + k * s.d);

  const std::vector<double> mass = log_sums(zero.log_prob, next.cluster_of_token, s.clusters);
  const double total = log_sum(values.cluster_bias);
  for (std::size_t k = 0; k < s.clusters; ++k) result.cluster_bias[k] = static_cast<float>(mass[k] + total);
}

/// named (V): the tokens' clusters in `next` by their old names.
void carry_members(const CodeMap& old, const HeadArrays& values, const HeadAtZero& zero, const CodeMap& next,
                   const std::vector<std::int32_t>& named, HeadArrays& result) {
  const Sizes s(old, values);
  const MemberOrder order(next.cluster_of_token, next.clusters);
  for (std::size_t g = 0; g < s.groups; ++g) {
    const std::vector<double> wanted = wanted_members(old, values, zero, named, static_cast<int>(g));
    WeightedMeans means(s.codes, s.width);
    for (std::size_t v = 0; v < s.vocab; ++v) {
      const std::size_t k = cluster_of(next, v);
      if (order.begin[k + 1] - order.begin[k] == 1) continue;
      means.add(code_row(next, v, g) - g * s.codes, std::exp(zero.log_prob[v]), wanted.data() + v * s.width);
    }
    for (std::size_t q = 0; q < s.codes; ++q)
      means.write(q, result.member_codebook.data() + (g * s.codes + q) * s.width);
  }
}

void carry_token_biases(const CodeMap& old, const HeadArrays& values, const HeadAtZero& zero,
                        const std::vector<std::int32_t>& named, HeadArrays& result) {
  if (values.token_bias.empty()) return;
  std::vector<double> offset(static_cast<std::size_t>(old.clusters));
  for (std::size_t v = 0; v < named.size(); ++v) offset[cluster_of(old, v)] = zero.offset[v];
  for (std::size_t v = 0; v < named.size(); ++v) {
    const double moved = offset[static_cast<std::size_t>(named[v])] - offset[cluster_of(old, v)];
    result.token_bias[v] = static_cast<float>(static_cast<double>(values.token_bias[v]) + moved);
  }
}

}  // namespace

HeadAtZero head_at_zero(const CodeMap& map, const HeadArrays& values) {
  const Sizes s(map, values);
  std::vector<double> bias(s.vocab, 0.0);
  if (!values.token_bias.empty()) bias.assign(values.token_bias.begin(), values.token_bias.end());
  const std::vector<double> members = log_sums(bias, map.cluster_of_token, s.clusters);
  const double total = log_sum(values.cluster_bias);
  HeadAtZero zero{.log_prob = std::vector<double>(s.vocab),
                  .in_cluster = std::vector<double>(s.vocab),
                  .offset = std::vector<double>(s.vocab),
                  .mean_member = std::vector<double>(s.clusters * s.d, 0.0)};
  for (std::size_t v = 0; v < s.vocab; ++v) {
    const std::size_t k = cluster_of(map, v);
    zero.offset[v] = members[k] - static_cast<double>(values.cluster_bias[k]) + total;
    zero.log_prob[v] = bias[v] - zero.offset[v];
    zero.in_cluster[v] = std::exp(bias[v] - members[k]);
    for (std::size_t g = 0; g < s.groups; ++g) {
      const float* const u = values.member_codebook.data() + code_row(map, v, g) * s.width;
      double* const mean = zero.mean_member.data() + k * s.d + g * s.width;
      for (std::size_t i = 0; i < s.width; ++i) mean[i] += zero.in_cluster[v] * static_cast<double>(u[i]);
    }
  }
  return zero;
}

std::vector<std::int32_t> named_after(const std::vector<std::int32_t>& old, const std::vector<std::int32_t>& fresh,
                                      std::int64_t clusters, const HeadAtZero& zero) {
  VQLM_ASSERT(old.size() == fresh.size() && old.size() == zero.log_prob.size());
  std::map<std::pair<std::int32_t, std::int32_t>, double> shared;
  for (std::size_t v = 0; v < old.size(); ++v) shared[{old[v], fresh[v]}] += std::exp(zero.log_prob[v]);
  std::vector<std::pair<std::pair<std::int32_t, std::int32_t>, double>> pairs(shared.begin(), shared.end());
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::int32_t> name(static_cast<std::size_t>(clusters), none);
  std::vector<bool> given(static_cast<std::size_t>(clusters), false);
  for (const auto& [pair, unused] : pairs) {
    const auto was = static_cast<std::size_t>(pair.first), now = static_cast<std::size_t>(pair.second);
    if (name[now] != none || given[was]) continue;
    name[now] = pair.first;
    given[was] = true;
  }
  auto free = std::find(given.begin(), given.end(), false);
  for (std::int32_t& other : name) {
    if (other != none) continue;
    other = static_cast<std::int32_t>(free - given.begin());
    free = std::find(free + 1, given.end(), false);
  }
  std::vector<std::int32_t> named(fresh.size());
  std::transform(fresh.begin(), fresh.end(), named.begin(),
                 [&](std::int32_t cluster) { return name[static_cast<std::size_t>(cluster)]; });
  return named;
}

std::vector<double> wanted_members(const CodeMap& old, const HeadArrays& values, const HeadAtZero& zero,
                                   const std::vector<std::int32_t>& cluster_of_token, int group) {
  const Sizes s(old, values);
  VQLM_ASSERT(s.groups > 0);
  const std::size_t begin = static_cast<std::size_t>(group) * s.width;
  std::vector<double> wanted(s.vocab * s.width);
  for (std::size_t v = 0; v < s.vocab; ++v) {
    const std::size_t j = cluster_of(old, v) * s.d + begin;
    const std::size_t k = static_cast<std::size_t>(cluster_of_token[v]) * s.d + begin;
    const std::size_t u = code_row(old, v, static_cast<std::size_t>(group)) * s.width;
    for (std::size_t i = 0; i < s.width; ++i) {
      wanted[v * s.width + i] = static_cast<double>(values.member_codebook[u + i]);
      if (j == k) continue;  // exactly u_v
      wanted[v * s.width + i] += static_cast<double>(values.codebook[j + i]) - zero.mean_member[j + i] -
                                 (static_cast<double>(values.codebook[k + i]) - zero.mean_member[k + i]);
    }
  }
  return wanted;
}

CarriedHead carry_over(const CodeMap& old, const HeadArrays& values, const CodeMap& next) {
  VQLM_ASSERT(old.vocab_size == next.vocab_size && old.clusters == next.clusters && old.groups == next.groups &&
              old.codes == next.codes);
  const HeadAtZero zero = head_at_zero(old, values);
  const std::vector<std::int32_t> named = named_after(old.cluster_of_token, next.cluster_of_token, old.clusters, zero);
  CarriedHead carried{.values = values};
  for (std::size_t v = 0; v < named.size(); ++v) carried.moved_tokens += named[v] != old.cluster_of_token[v] ? 1 : 0;
  carry_codebook(old, values, zero, next, carried.values);
  if (old.groups > 0) carry_members(old, values, zero, next, named, carried.values);
  carry_token_biases(old, values, zero, named, carried.values);
  return carried;
}

}  // namespace vqlm
