// The cross entropy among a cluster's members, against a double-precision reference; and the whole VQ distribution.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/core/member_map.h"

namespace vqlm::testing {
namespace {

using Case = MemberCase;
using Map = MemberMap;

/// Everything that member_entropy accumulates, in double, and what float may lose in each.
struct Reference {
  std::vector<double> nll, dh, dcodebook, dbias;
  std::vector<double> nll_bound, dh_bound, dcodebook_bound, dbias_bound;
};

class MemberEntropyTest : public OpTest, public ::testing::WithParamInterface<Case> {
 protected:
  MemberEntropyTest() {
    if (c.first_cluster_has_most_rows) {
      for (std::int64_t n = 0; n < c.rows; ++n) {
        if (n % 10 != 0) targets[n] = map.members[map.member_begin[0] + n % c.cluster_sizes[0]];
      }
    }
    backend->run(SortRowsByCluster{
        .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  }

  Case c = GetParam();
  Map map{c};
  HostF32 h = random_normal({c.rows, c.d()}, "h");
  HostF32 codebook = random_normal(c.codebook_shape(), "codebook", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  HostI32 targets = random_integers<std::int32_t>({c.rows}, "targets", -1, c.vocabulary() - 1);
  HostI32 clusters{Shape{c.rows}}, order{Shape{c.rows}}, row_begin{Shape{c.clusters() + 1}};

  Tensor codebook_or_absent() { return c.groups > 0 ? codebook.tensor() : Tensor{}; }
  /// The op on the fixture's operands.
  MemberEntropy entropy(Tensor nll, const MemberGradients& gradients = {}) {
    return {.nll = nll,
            .gradients = gradients,
            .h = h,
            .targets = targets,
            .order = order,
            .row_begin = row_begin,
            .member_codebook = codebook_or_absent(),
            .token_bias = bias,
            .map = map.view()};
  }
  /// Where member w's group g begins in the codebook.
  std::size_t entry(std::int64_t w, int g) const {
    const std::int64_t position = map.position_of_token[w];
    return static_cast<std::size_t>((g * c.codes + map.code(position, g)) * c.width);
  }
  /// s of every member of token y's cluster, in member order; `terms` is the largest sum of |terms| of a score.
  std::vector<double> scores(const std::vector<double>& rows, const std::vector<double>& u, std::int64_t n,
                             std::int32_t k, double& terms) const {
    std::vector<double> s;
    for (std::int32_t at = map.member_begin[k]; at < map.member_begin[k + 1]; ++at) {
      const std::int32_t w = map.members[at];
      double sum = bias[w], magnitude = std::abs(sum);
      for (int g = 0; g < c.groups; ++g) {
        for (std::int64_t i = 0; i < c.width; ++i) {
          const double term = rows[static_cast<std::size_t>(n * c.d() + g * c.width + i)] *
                              u[entry(w, g) + static_cast<std::size_t>(i)];
          sum += term;
          magnitude += std::abs(term);
        }
      }
      s.push_back(sum);
      terms = std::max(terms, magnitude);
    }
    return s;
  }
  Reference reference(const std::vector<double>& rows, const std::vector<double>& u, double scale) const;
  void expect_reference(Backend& tested, const Reference& expected, float scale);
};

double log_sum_exp(const std::vector<double>& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

Reference MemberEntropyTest::reference(const std::vector<double>& rows, const std::vector<double>& u,
                                       double scale) const {
  Reference r;
  const auto resize = [](std::vector<double>& a, std::vector<double>& b, std::size_t n) { a.resize(n), b.resize(n); };
  resize(r.nll, r.nll_bound, static_cast<std::size_t>(c.rows));
  resize(r.dh, r.dh_bound, rows.size());
  resize(r.dcodebook, r.dcodebook_bound, u.size());
  resize(r.dbias, r.dbias_bound, static_cast<std::size_t>(c.vocabulary()));
  // Additions that a gradient passes through: over the members, or over all rows and members that share a code.
  const double length = static_cast<double>(c.rows + c.vocabulary());
  for (std::int64_t n = 0; n < c.rows; ++n) {
    if (targets[n] < 0) continue;
    const std::int32_t k = map.cluster_of_token[targets[n]];
    double terms = 0;
    const std::vector<double> s = scores(rows, u, n, k, terms);
    const double lse = log_sum_exp(s);
    const auto y = static_cast<std::size_t>(map.position_of_token[targets[n]] - map.member_begin[k]);
    // d + 3 roundings in a score, 256 + s / 1024 in the sum of exponentials (1024 / 4 lanes), a few in exp and log.
    const double error =
        u32 * (2 * static_cast<double>(c.d() + 3) * terms + 256 + static_cast<double>(s.size()) / 1024 + 8);
    r.nll[static_cast<std::size_t>(n)] = lse - s[y];
    r.nll_bound[static_cast<std::size_t>(n)] = error;
    for (std::size_t m = 0; m < s.size(); ++m) {
      const double p = std::exp(s[m] - lse), ds = scale * (p - (m == y ? 1 : 0));
      const double ds_error = scale * p * error + u32 * (length + 2) * (scale * p + (m == y ? scale : 0));
      const std::int32_t w = map.members[map.member_begin[k] + static_cast<std::int32_t>(m)];
      r.dbias[static_cast<std::size_t>(w)] += ds;
      r.dbias_bound[static_cast<std::size_t>(w)] += ds_error;
      for (int g = 0; g < c.groups; ++g) {
        for (std::int64_t i = 0; i < c.width; ++i) {
          const auto at = static_cast<std::size_t>(n * c.d() + g * c.width + i);
          const std::size_t code = entry(w, g) + static_cast<std::size_t>(i);
          r.dh[at] += ds * u[code];
          r.dh_bound[at] += ds_error * std::abs(u[code]);
          r.dcodebook[code] += ds * rows[at];
          r.dcodebook_bound[code] += ds_error * std::abs(rows[at]);
        }
      }
    }
  }
  return r;
}

void MemberEntropyTest::expect_reference(Backend& tested, const Reference& expected, float scale) {
  // Small integers at the start: adding to them costs one rounding of at most 4 + |gradient|.
  HostF32 nll = random_integers({c.rows}, "nll", -4, 4), dh = random_integers({c.rows, c.d()}, "dh", -4, 4);
  HostF32 dcodebook = random_integers(codebook.shape(), "dcodebook", -4, 4);
  HostF32 dbias = random_integers({c.vocabulary()}, "dbias", -4, 4);
  const auto bound = [&](std::vector<double> b, const std::vector<double>& value, double additions) {
    for (std::size_t i = 0; i < b.size(); ++i) b[i] += u32 * additions * (4 + std::abs(value[i]));
    return b;
  };
  const auto nll_0 = nll.doubles(), dh_0 = dh.doubles(), dcodebook_0 = dcodebook.doubles(), dbias_0 = dbias.doubles();
  MemberGradients gradients{dh, c.groups > 0 ? dcodebook.tensor() : Tensor{}, dbias, scale};
  tested.run(entropy(nll, gradients));
  expect_close(nll, added(nll_0, expected.nll), bound(expected.nll_bound, expected.nll, 1), "nll");
  expect_close(dh, added(dh_0, expected.dh), bound(expected.dh_bound, expected.dh, 1), "dh");
  expect_close(dbias, added(dbias_0, expected.dbias),
               bound(expected.dbias_bound, expected.dbias, static_cast<double>(c.rows)), "dtoken_bias");
  expect_close(dcodebook, added(dcodebook_0, expected.dcodebook),
               bound(expected.dcodebook_bound, expected.dcodebook, static_cast<double>(c.rows + c.vocabulary())),
               "dmember_codebook");

  HostF32 nll_alone({c.rows});
  tested.run(entropy(nll_alone));
  expect_close(nll_alone, expected.nll, bound(expected.nll_bound, expected.nll, 1), "nll without gradients");
}

TEST_P(MemberEntropyTest, EqualsReferenceAndAccumulates) {
  const float scale = 0.25f;
  const Reference expected = reference(h.doubles(), codebook.doubles(), scale);
  for (const int threads : {1, 2, 3}) {
    SCOPED_TRACE(threads);
    expect_reference(*make_cpu_backend(threads), expected, scale);
  }
}

/// The reference's gradients are the slopes of its loss, at a few coordinates of each operand.
TEST_P(MemberEntropyTest, ReferenceEqualsFiniteDifferences) {
  const std::vector<double> rows = h.doubles(), u = codebook.doubles();
  const Reference expected = reference(rows, u, 1);
  const double step = 1e-5;
  const auto total = [](const Reference& r) { return std::accumulate(r.nll.begin(), r.nll.end(), 0.0); };
  const auto slope = [&](std::vector<double> x, std::size_t at, const auto& loss) {
    const double center = x[at];
    x[at] = center + step;
    const double above = loss(x);
    x[at] = center - step;
    return (above - loss(x)) / (2 * step);
  };
  for (std::size_t sample = 0; sample < 3; ++sample) {
    const std::size_t at = sample * 7919 % rows.size();
    ASSERT_NEAR(slope(rows, at, [&](const auto& x) { return total(reference(x, u, 1)); }), expected.dh[at], 1e-6);
    if (u.empty()) continue;
    const std::size_t code = sample * 7919 % u.size();
    ASSERT_NEAR(slope(u, code, [&](const auto& x) { return total(reference(rows, x, 1)); }), expected.dcodebook[code],
                1e-6);
  }
}

TEST_P(MemberEntropyTest, RepeatsBitForBit) {
  HostF32 first = HostF32(codebook.shape()), second = HostF32(codebook.shape());
  for (HostF32* dcodebook : {&first, &second}) {
    HostF32 nll({c.rows}), dh({c.rows, c.d()}), dbias({c.vocabulary()});
    MemberGradients gradients{dh, c.groups > 0 ? dcodebook->tensor() : Tensor{}, dbias, 1.0f};
    backend->run(entropy(nll, gradients));
  }
  expect_equal(first, second, "dmember_codebook");
}

/// Both factors together: sum over the vocabulary 1, and the target's entry equal to what training computes.
TEST_P(MemberEntropyTest, LogProbabilitiesAreTheTrainingLoss) {
  HostF32 codes = random_normal({c.rows, c.clusters()}, "code logits");
  backend->run(LogSoftmax{.logits = codes});
  HostF32 log_probs = poisoned({c.rows, c.vocabulary()}), nll({c.rows});
  backend->run(MemberLogProbs{.log_probs = log_probs,
                              .h = h,
                              .code_log_probs = codes,
                              .member_codebook = codebook_or_absent(),
                              .token_bias = bias,
                              .map = map.view()});
  backend->run(entropy(nll));
  const Reference expected = reference(h.doubles(), codebook.doubles(), 1);
  for (std::int64_t n = 0; n < c.rows; ++n) {
    double total = 0, tolerance = 0;
    for (std::int64_t v = 0; v < c.vocabulary(); ++v) total += std::exp(double{log_probs[n * c.vocabulary() + v]});
    const double bound = expected.nll_bound[static_cast<std::size_t>(n)];
    // Every log-probability is off by the bound of a member's nll and of a code's; rows without target have the largest.
    tolerance = max_abs(expected.nll_bound) + 1e-6;
    ASSERT_NEAR(total, 1, 2 * tolerance + 64 * u32) << "row " << n;
    if (targets[n] < 0) continue;
    const double loss = double{nll[n]} - double{codes[n * c.clusters() + clusters[n]]};
    ASSERT_NEAR(-log_probs[n * c.vocabulary() + targets[n]], loss, 2 * bound + 8 * u32 * (1 + std::abs(loss)))
        << "row " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Maps, MemberEntropyTest,
    ::testing::Values(Case{"PrimeVocabulary", 130, 4, 5, 16, {20, 31, 1, 45, 30}},
                      Case{"SingleMembers", 40, 2, 3, 8, {1, 1, 1, 1}}, Case{"OneRow", 1, 2, 16, 4, {30, 7}},
                      Case{"OneRowOddGroups", 1, 19, 256, 4, {30, 7}},        // a table of its own, 8 codes at a time
                      Case{"OddGroups", 21, 19, 7, 4, {70, 1, 66, 30}},       // interleaved tables, the last of 5 rows
                      Case{"VeryUneven", 40, 32, 7, 16, {1, 300, 1, 2, 17}},  // several member tiles
                      Case{"FewRowsManyMembers", 9, 32, 7, 16, {300, 4}},
                      Case{"MostRowsInOneCluster", 400, 8, 16, 4, {50, 3, 1, 9}, true},  // several units
                      Case{"OddWidth", 33, 3, 2, 5, {11, 12}}, Case{"OneGroup", 70, 1, 256, 64, {40, 60}},
                      Case{"OneCluster", 30, 4, 8, 8, {97}}, Case{"NoGroups", 90, 0, 0, 16, {13, 1, 28, 5}},
                      with_own_vectors("OwnVectors", 130, 64, {20, 31, 1, 45, 30}),
                      with_own_vectors("OwnVectorsOfSingleMembers", 40, 16, {1, 1, 1, 1}),
                      with_own_vectors("OwnVectorsOneRow", 1, 8, {30, 7}),
                      with_own_vectors("OwnVectorsVeryUneven", 40, 512, {1, 300, 1, 2, 17}),  // two tiles
                      with_own_vectors("OwnVectorsMostRowsInOneCluster", 400, 32, {50, 3, 1, 9}, true),
                      with_own_vectors("OwnVectorsOddWidth", 33, 15, {11, 12}),
                      with_own_vectors("OwnVectorsOneCluster", 30, 33, {97})),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(OpTest, MemberEntropyOfRowsWithoutTargets) {
  const Case c{"", 5, 2, 4, 8, {6, 5}};
  Map map(c);
  HostF32 h = random_normal({5, 16}, "h"), codebook = random_normal({2, 4, 8}, "codebook"), bias({11});
  HostI32 targets({5}, -1), clusters({5}), order({5}), row_begin({3});
  backend->run(SortRowsByCluster{
      .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  HostF32 nll({5}, 3.0f), dh({5, 16}, 3.0f), dcodebook({2, 4, 8}, 3.0f), dbias({11}, 3.0f);
  backend->run(MemberEntropy{.nll = nll,
                             .gradients = {dh, dcodebook, dbias, 1.0f},
                             .h = h,
                             .targets = targets,
                             .order = order,
                             .row_begin = row_begin,
                             .member_codebook = codebook,
                             .token_bias = bias,
                             .map = map.view()});
  expect_equal(nll, HostF32({5}, 3.0f), "nll");
  expect_equal(dh, HostF32({5, 16}, 3.0f), "dh");
  expect_equal(dcodebook, HostF32({2, 4, 8}, 3.0f), "dmember_codebook");
  expect_equal(dbias, HostF32({11}, 3.0f), "dtoken_bias");
}

/// Codes that spell the members' own vectors: one group whose sub-code i is the vector of the member at i.
TEST_F(OpTest, MembersWithOwnVectorsAreMembersOfOneGroupWithAllCodes) {
  const Case c = with_own_vectors("", 70, 40, {20, 31, 1, 45, 30});
  Map map(c);
  HostF32 h = random_normal({c.rows, c.d()}, "h"), u = random_normal(c.codebook_shape(), "u", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  HostI32 targets = random_integers<std::int32_t>({c.rows}, "targets", -1, c.vocabulary() - 1);
  HostI32 clusters({c.rows}), order({c.rows}), row_begin({c.clusters() + 1});
  backend->run(SortRowsByCluster{
      .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  HostU8 codes({c.vocabulary(), 1});
  for (std::int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i);
  CodeMapView coded = map.view();
  coded.member_codes = codes;
  HostF32 of_codes = random_normal({c.rows, c.clusters()}, "code logits");

  HostF32 nll({c.rows}), dh(h.shape()), du(u.shape()), dbias({c.vocabulary()});
  HostF32 coded_nll({c.rows}), coded_dh(h.shape()), coded_du(u.shape()), coded_dbias({c.vocabulary()});
  HostF32 log_probs = poisoned({c.rows, c.vocabulary()}), coded_log_probs = poisoned(log_probs.shape());
  const Tensor group = u.tensor().view({1, c.vocabulary(), c.d()}),
               dgroup = coded_du.tensor().view({1, c.vocabulary(), c.d()});
  backend->run(MemberEntropy{.nll = nll,
                             .gradients = {dh, du, dbias, 0.5f},
                             .h = h,
                             .targets = targets,
                             .order = order,
                             .row_begin = row_begin,
                             .member_codebook = u,
                             .token_bias = bias,
                             .map = map.view()});
  backend->run(MemberEntropy{.nll = coded_nll,
                             .gradients = {coded_dh, dgroup, coded_dbias, 0.5f},
                             .h = h,
                             .targets = targets,
                             .order = order,
                             .row_begin = row_begin,
                             .member_codebook = group,
                             .token_bias = bias,
                             .map = coded});
  backend->run(MemberLogProbs{.log_probs = log_probs,
                              .h = h,
                              .code_log_probs = of_codes,
                              .member_codebook = u,
                              .token_bias = bias,
                              .map = map.view()});
  backend->run(MemberLogProbs{.log_probs = coded_log_probs,
                              .h = h,
                              .code_log_probs = of_codes,
                              .member_codebook = group,
                              .token_bias = bias,
                              .map = coded});
  // Scores of d + 1 terms, each below max |h| max |u| or max |b|, in any order, twice (s and lse), on both sides; a
  // gradient's probability is off by that much, relatively, and its sums of at most N + V terms by one unit each.
  const double terms = static_cast<double>(c.d()) * max_abs(h.doubles()) * max_abs(u.doubles()) + 4;
  const double of_score = u32 * (4 * static_cast<double>(c.d() + 4) * terms + 600);
  const auto additions = static_cast<double>(c.rows + c.vocabulary());
  const double of_gradient = 2 * (of_score + u32 * additions) * additions;
  expect_close(nll, coded_nll.doubles(), of_score, "nll");
  expect_close(log_probs, coded_log_probs.doubles(), of_score, "log_probs");
  expect_close(dbias, coded_dbias.doubles(), of_gradient, "dtoken_bias");
  expect_close(dh, coded_dh.doubles(), of_gradient * max_abs(u.doubles()), "dh");
  expect_close(du, coded_du.doubles(), of_gradient * max_abs(h.doubles()), "dmember_codebook");
}

}  // namespace
}  // namespace vqlm::testing
