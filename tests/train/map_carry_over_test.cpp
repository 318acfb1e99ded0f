// Carrying a head over to another map: what is promised to stay does, to rounding, and a small case worked out by hand.
#include "train/codes/map_carry_over.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rng.h"

namespace vqlm {
namespace {

std::vector<float> drawn(std::size_t count, const std::string& name, float scale) {
  const Philox rng(3, name);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = scale * rng.normal(i);
  return values;
}

HeadArrays drawn_arrays(const CodeMap& map, std::int64_t d, const std::string& name, float scale) {
  const auto k = static_cast<std::size_t>(map.clusters), v = static_cast<std::size_t>(map.vocab_size);
  const auto width = static_cast<std::size_t>(d);
  return {
      .d_model = d,
      .codebook = drawn(k * width, name + ".c", scale),
      .cluster_bias = drawn(k, name + ".beta", scale),
      .member_codebook = drawn(map.groups > 0 ? static_cast<std::size_t>(map.codes) * width : 0, name + ".u", scale),
      .token_bias = drawn(v, name + ".b", scale)};
}

HeadArrays drawn_head(const CodeMap& map, std::int64_t d) {
  return drawn_arrays(map, d, "values", 0.5f);
}

/// log p(v | h) as docs/heads.md has it, in double precision.
std::vector<double> log_probs(const CodeMap& map, const HeadArrays& head, const std::vector<double>& h) {
  const auto clusters = static_cast<std::size_t>(map.clusters), tokens = static_cast<std::size_t>(map.vocab_size);
  const std::size_t width = map.groups > 0 ? h.size() / static_cast<std::size_t>(map.groups) : 0;
  std::vector<double> a(clusters), s(tokens), sums(clusters, 0.0), result(tokens);
  double all = 0;
  for (std::size_t k = 0; k < clusters; ++k) {
    a[k] = static_cast<double>(head.cluster_bias[k]);
    for (std::size_t i = 0; i < h.size(); ++i) a[k] += h[i] * static_cast<double>(head.codebook[k * h.size() + i]);
    all += std::exp(a[k]);
  }
  for (std::size_t v = 0; v < tokens; ++v) {
    s[v] = head.token_bias.empty() ? 0.0 : static_cast<double>(head.token_bias[v]);
    for (std::size_t g = 0; g < static_cast<std::size_t>(map.groups); ++g) {
      const std::size_t code = map.member_codes[v * static_cast<std::size_t>(map.groups) + g];
      const std::size_t row = (g * static_cast<std::size_t>(map.codes) + code) * width;
      for (std::size_t i = 0; i < width; ++i)
        s[v] += h[g * width + i] * static_cast<double>(head.member_codebook[row + i]);
    }
    sums[static_cast<std::size_t>(map.cluster_of_token[v])] += std::exp(s[v]);
  }
  for (std::size_t v = 0; v < tokens; ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    result[v] = a[k] - std::log(all) + s[v] - std::log(sums[k]);
  }
  return result;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

// Log-probabilities here are sums of about 10 floats of size up to 4, each stored with a relative error of 2^-24.
constexpr double rounding = 10 * 4 * 0x1p-24;
constexpr std::int64_t width = 8;

TEST(MapCarryOver, ProbabilitiesAtZeroAreKeptForAnyPairOfMaps) {
  for (const int groups : {0, 4}) {
    const CodeMap old = make_random_map(50, 7, groups, groups > 0 ? 5 : 0, 1);
    const CodeMap next = make_random_map(50, 7, groups, groups > 0 ? 5 : 0, 2);
    const HeadArrays head = drawn_head(old, width);
    const std::vector<double> zero(width, 0.0);
    const CarriedHead carried = carry_over(old, head, next);
    EXPECT_LT(largest_difference(log_probs(next, carried.values, zero), log_probs(old, head, zero)), rounding);
  }
}

TEST(MapCarryOver, WithoutTokenBiasesClustersKeepTheirMassAtZero) {
  const CodeMap old = make_random_map(50, 7, 4, 5, 1), next = make_random_map(50, 7, 4, 5, 2);
  HeadArrays head = drawn_head(old, width);
  head.token_bias.clear();
  const std::vector<double> zero(width, 0.0);
  const CarriedHead carried = carry_over(old, head, next);
  EXPECT_TRUE(carried.values.token_bias.empty());
  std::vector<double> before(7, 0.0), after(7, 0.0);
  const std::vector<double> p = log_probs(old, head, zero), q = log_probs(next, carried.values, zero);
  for (std::size_t v = 0; v < 50; ++v) {
    before[static_cast<std::size_t>(next.cluster_of_token[v])] += std::exp(p[v]);
    after[static_cast<std::size_t>(next.cluster_of_token[v])] += std::exp(q[v]);
  }
  EXPECT_LT(largest_difference(before, after), rounding);
}

/// The same map under other names: clusters turned around, codes of each group shifted.
CodeMap renamed(const CodeMap& map) {
  CodeMap other = map;
  for (std::int32_t& cluster : other.cluster_of_token) cluster = static_cast<std::int32_t>(map.clusters) - 1 - cluster;
  for (std::uint8_t& code : other.member_codes) code = static_cast<std::uint8_t>((code + 2) % map.codes);
  return other;
}

TEST(MapCarryOver, TheSamePartitionUnderOtherNamesChangesNothing) {
  const CodeMap old = make_random_map(50, 7, 4, 5, 1);
  const CodeMap next = renamed(old);
  const HeadArrays head = drawn_head(old, width);
  EXPECT_EQ(named_after(old.cluster_of_token, next.cluster_of_token, 7, head_at_zero(old, head)), old.cluster_of_token);
  const CarriedHead carried = carry_over(old, head, next);
  EXPECT_EQ(carried.moved_tokens, 0);
  const std::vector<float> random = drawn(width, "h", 1.0f);
  const std::vector<double> h(random.begin(), random.end());
  EXPECT_LT(largest_difference(log_probs(next, carried.values, h), log_probs(old, head, h)), rounding);
  EXPECT_EQ(carried.values.token_bias, head.token_bias);
  // Rows go with their contents: cluster k is now 6 - k, code q is q + 2.
  for (std::size_t k = 0; k < 7; ++k) {
    for (std::size_t i = 0; i < width; ++i)
      EXPECT_NEAR(carried.values.codebook[(6 - k) * width + i], head.codebook[k * width + i], 1e-6);
  }
  for (std::size_t g = 0; g < 4; ++g) {
    for (std::size_t q = 0; q < 5; ++q) {
      for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_NEAR(carried.values.member_codebook[(g * 5 + (q + 2) % 5) * 2 + i],
                    head.member_codebook[(g * 5 + q) * 2 + i], 1e-6);
      }
    }
  }
}

TEST(MapCarryOver, NamesOfClustersDoNotMatter) {
  const CodeMap old = make_random_map(50, 7, 4, 5, 1), next = make_random_map(50, 7, 4, 5, 2);
  CodeMap other = next;
  for (std::int32_t& cluster : other.cluster_of_token) cluster = 6 - cluster;
  const HeadArrays head = drawn_head(old, width);
  const CarriedHead carried = carry_over(old, head, next), turned = carry_over(old, head, other);
  EXPECT_GT(carried.moved_tokens, 0);
  EXPECT_EQ(turned.moved_tokens, carried.moved_tokens);
  EXPECT_EQ(turned.values.member_codebook, carried.values.member_codebook);
  EXPECT_EQ(turned.values.token_bias, carried.values.token_bias);
  for (std::size_t k = 0; k < 7; ++k) {
    EXPECT_EQ(turned.values.cluster_bias[6 - k], carried.values.cluster_bias[k]);
    for (std::size_t i = 0; i < width; ++i)
      EXPECT_EQ(turned.values.codebook[(6 - k) * width + i], carried.values.codebook[k * width + i]);
  }
}

TEST(MapCarryOver, FirstDerivativesAreKeptWhereEveryTokenHasItsOwnCodes) {
  CodeMap old = make_random_map(30, 5, 4, 30, 1), next = make_random_map(30, 5, 4, 30, 2);
  for (std::size_t i = 0; i < next.member_codes.size(); ++i)
    old.member_codes[i] = next.member_codes[i] = static_cast<std::uint8_t>(i / 4);
  const HeadArrays head = drawn_head(old, width);
  const CarriedHead carried = carry_over(old, head, next);
  // A term that all tokens share falls out: the difference of two tokens has the derivative w_v - w_0. For h = e x, the
  // rest is of order e^2: with entries of about 0.5, a quarter at e = 0.03 is 1e-3; the codes alone change scores by
  // 0.1.
  const std::vector<float> random = drawn(width, "h", 0.03f);
  const std::vector<double> h(random.begin(), random.end()), zero(width, 0.0);
  const auto change = [&](const CodeMap& map, const HeadArrays& values) {
    std::vector<double> there = log_probs(map, values, h);
    const std::vector<double> here = log_probs(map, values, zero);
    for (std::size_t v = 0; v < there.size(); ++v) there[v] -= here[v];
    return there;
  };
  const std::vector<double> before = change(old, head), after = change(next, carried.values);
  EXPECT_LT(largest_difference(before, after), 2e-3);
  EXPECT_GT(largest_difference(before, std::vector<double>(before.size(), 0.0)), 0.04);
}

// d = 1, G = 1, Q = 2, uniform probabilities: L_v = log 1/4. Clusters {0, 1}, {2, 3} become {0, 2}, {1, 3}.
//   ubar = (u_0 + u_1) / 2 = (2 + 4) / 2 = 3 in both, as codes are 0, 1, 0, 1;  w = c + u - 3: 10 - 1, 10 + 1, 20 - 1, 20 + 1
//   c'_0 = (9 + 19) / 2 = 14, c'_1 = (11 + 21) / 2 = 16
//   t_1 = u_1 + (10 - 3) - (20 - 3) = 4 - 10 = -6, t_2 = 2 + 10 = 12, t_0 = 2, t_3 = 4
TEST(MapCarryOver, TwoTokensThatChangePlaces) {
  const CodeMap old{.vocab_size = 4,
                    .clusters = 2,
                    .groups = 1,
                    .codes = 2,
                    .cluster_of_token = {0, 0, 1, 1},
                    .member_codes = {0, 1, 0, 1},
                    .provenance = {}};
  CodeMap next = old;
  next.cluster_of_token = {0, 1, 0, 1};
  const HeadArrays values{.d_model = 1,
                          .codebook = {10, 20},
                          .cluster_bias = {0, 0},
                          .member_codebook = {2, 4},
                          .token_bias = {1, 1, 1, 1}};
  const CarriedHead carried = carry_over(old, values, next);
  EXPECT_EQ(carried.moved_tokens, 2);
  EXPECT_FLOAT_EQ(carried.values.codebook[0], 14);
  EXPECT_FLOAT_EQ(carried.values.codebook[1], 16);
  EXPECT_FLOAT_EQ(carried.values.member_codebook[0], (2 + 12) / 2.0f);  // codes stay: 0 is tokens 0 and 2
  EXPECT_FLOAT_EQ(carried.values.member_codebook[1], (-6 + 4) / 2.0f);
  for (const float b : carried.values.token_bias) EXPECT_FLOAT_EQ(b, 1);
  for (const float beta : carried.values.cluster_bias) EXPECT_NEAR(beta, 0, 1e-6);
  const HeadAtZero zero = head_at_zero(old, values);
  EXPECT_EQ(wanted_members(old, values, zero, next.cluster_of_token, 0), (std::vector<double>{2, -6, 12, 4}));
}

TEST(MapCarryOver, ACodeWithoutTokensKeepsWhatItHad) {
  CodeMap old = make_random_map(20, 4, 2, 6, 1);
  CodeMap next = old;
  for (std::uint8_t& code : next.member_codes) code = 0;
  const HeadArrays head = drawn_head(old, width);
  const CarriedHead carried = carry_over(old, head, next);
  for (std::size_t i = 4; i < 24; ++i)  // codes 1 to 5 of group 0
    EXPECT_EQ(carried.values.member_codebook[i], head.member_codebook[i]);
}

/// Tokens with these probabilities.
HeadAtZero with_mass(const std::vector<double>& mass) {
  HeadAtZero zero;
  for (const double p : mass) zero.log_prob.push_back(std::log(p));
  return zero;
}

TEST(NamedAfter, TheLargestSharedMassDecides) {
  // Fresh cluster 0 shares 3 with old 1 and 1 with old 0, fresh 1 shares 2 with old 1: it must take old 0.
  EXPECT_EQ(named_after({0, 1, 1, 1}, {0, 0, 1, 1}, 2, with_mass({1, 3, 1, 1})),
            (std::vector<std::int32_t>{1, 1, 0, 0}));
  EXPECT_EQ(named_after({2, 2, 0, 1}, {0, 0, 1, 2}, 3, with_mass({1, 1, 1, 1})),
            (std::vector<std::int32_t>{2, 2, 0, 1}));
}

TEST(NamedAfter, NamesThatWereGivenAreGivenAgain) {
  const CodeMap old = make_random_map(50, 7, 4, 5, 1), next = make_random_map(50, 7, 4, 5, 2);
  const HeadAtZero zero = head_at_zero(old, drawn_head(old, width));
  const std::vector<std::int32_t> named = named_after(old.cluster_of_token, next.cluster_of_token, 7, zero);
  EXPECT_EQ(named_after(old.cluster_of_token, named, 7, zero), named);
}

}  // namespace
}  // namespace vqlm
