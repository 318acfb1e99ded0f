// The search by bound and the sampling by cluster, on made-up clusters: against a sort of all tokens.
#include "core/model/head/cluster_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "tests/core/chi_square.h"

namespace vqlm::testing {
namespace {

constexpr float none = std::numeric_limits<float>::quiet_NaN();

/// log p(k) and log p(v | k) of one hidden state, as a model would give them.
class Clusters {
 public:
  Clusters(std::vector<std::vector<std::int32_t>> members, std::vector<double> scores,
           std::vector<std::vector<double>> member_scores)
      : members_(std::move(members)), code_(log_softmax(scores)) {
    for (const auto& s : member_scores) member_.push_back(log_softmax(s));
    for (const auto& m : members_) stride_ = std::max(stride_, m.size());
  }

  /// Every token a cluster, none empty; normal scores of the given spreads, rounded to multiples of `step` where that is
  /// above 0 (equal scores then give equal probabilities).
  static Clusters random(std::size_t vocabulary, std::size_t clusters, double spread, double member_spread,
                         std::uint64_t seed, double step = 0) {
    const Philox rng(seed, "clusters");
    const auto score = [&](std::uint64_t i, double scale) {
      const double x = scale * static_cast<double>(rng.normal(i));
      return step > 0 ? step * std::round(x / step) : x;
    };
    std::vector<std::vector<std::int32_t>> members(clusters);
    for (std::size_t v = 0; v < vocabulary; ++v) {
      const std::size_t k = v < clusters ? v : rng.below(v, clusters);
      members[k].push_back(static_cast<std::int32_t>(v));
    }
    std::vector<double> scores;
    std::vector<std::vector<double>> member_scores(clusters);
    for (std::size_t k = 0; k < clusters; ++k) {
      scores.push_back(score(1'000'000 + k, spread));
      for (std::int32_t v : members[k]) {
        member_scores[k].push_back(score(2'000'000 + static_cast<std::uint64_t>(v), member_spread));
      }
    }
    return {members, scores, member_scores};
  }

  ClusterSearch search(std::size_t first = 2, std::size_t most = 8) const {
    std::vector<std::int32_t> all, begin{0};
    for (const auto& m : members_) {
      all.insert(all.end(), m.begin(), m.end());
      begin.push_back(static_cast<std::int32_t>(all.size()));
    }
    return {all, begin, first, most};
  }
  const std::vector<float>& code_log_probs() const { return code_; }
  /// Adds `by` to log p(v | k) of the cluster's members: what rounding may do.
  void lift(std::size_t cluster, float by) {
    for (float& x : member_[cluster]) x += by;
  }

  ClusterSearch::Members rows() {
    return [this](std::span<const std::int32_t> clusters) {
      EXPECT_LE(clusters.size(), 8U);
      buffer_.assign(clusters.size() * stride_, none);
      for (std::size_t i = 0; i < clusters.size(); ++i) {
        const auto& row = member_[static_cast<std::size_t>(clusters[i])];
        std::copy(row.begin(), row.end(), buffer_.begin() + static_cast<std::ptrdiff_t>(i * stride_));
      }
      return ClusterSearch::MemberRows{buffer_, stride_};
    };
  }

  /// Every token with its value, in the order of falling probability.
  std::vector<TokenLogProb> sorted() const {
    std::vector<TokenLogProb> all;
    for (std::size_t k = 0; k < members_.size(); ++k) {
      for (std::size_t w = 0; w < members_[k].size(); ++w) {
        all.push_back({members_[k][w], code_[k] + std::min(member_[k][w], 0.0f)});
      }
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return less_probable(b, a); });
    return all;
  }
  std::vector<double> log_probs() const {
    std::vector<double> all(sorted().size());
    for (const TokenLogProb& t : sorted()) {
      all[static_cast<std::size_t>(t.token)] = static_cast<double>(t.log_prob);
    }
    return all;
  }

 private:
  static std::vector<float> log_softmax(const std::vector<double>& scores) {
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double s : scores) sum += std::exp(s - largest);
    std::vector<float> out;
    for (double s : scores) out.push_back(static_cast<float>(s - largest - std::log(sum)));
    return out;
  }

  std::vector<std::vector<std::int32_t>> members_;
  std::vector<float> code_;
  std::vector<std::vector<float>> member_;
  std::size_t stride_ = 0;
  std::vector<float> buffer_;
};

/// The beginning of the sorted list that most_probable() promises.
std::vector<TokenLogProb> prefix(std::vector<TokenLogProb> sorted, std::int64_t count, double mass) {
  double total = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    total += std::exp(static_cast<double>(sorted[i].log_prob));
    if (static_cast<std::int64_t>(i) + 1 >= count || total >= mass) {
      sorted.resize(i + 1);
      break;
    }
  }
  return sorted;
}

void expect_same(const std::vector<TokenLogProb>& actual, const std::vector<TokenLogProb>& expected,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].token, expected[i].token) << what << ", place " << i;
    ASSERT_EQ(actual[i].log_prob, expected[i].log_prob) << what << ", place " << i;
  }
}

constexpr double no_mass = 2;

void expect_search_is_a_sort(Clusters clusters, const std::string& what) {
  ClusterSearch search = clusters.search();
  const std::vector<TokenLogProb> sorted = clusters.sorted();
  const auto all = static_cast<std::int64_t>(sorted.size());
  const struct {
    std::int64_t count;
    double mass;
  } asked[] = {{1, no_mass}, {2, no_mass}, {7, no_mass}, {all, no_mass}, {all, 0.0},
               {all, 0.5},   {all, 0.9},   {5, 0.9},     {all, 0.999},   {0, 0.0}};
  for (const auto& ask : asked) {
    expect_same(search.most_probable(clusters.code_log_probs(), ask.count, ask.mass, clusters.rows()),
                prefix(sorted, ask.count, ask.mass),
                what + ", count " + std::to_string(ask.count) + ", mass " + std::to_string(ask.mass));
  }
}

TEST(ClusterSearch, FindsWhatASortFinds) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    expect_search_is_a_sort(Clusters::random(300, 17, 1.0, 1.0, seed), "even");
    expect_search_is_a_sort(Clusters::random(300, 17, 6.0, 4.0, seed), "peaked");
    expect_search_is_a_sort(Clusters::random(300, 17, 0.1, 0.1, seed), "flat");
    expect_search_is_a_sort(Clusters::random(300, 17, 1.0, 1.0, seed, 1.0), "ties");
    expect_search_is_a_sort(Clusters::random(300, 17, 0.0, 0.0, seed), "all of a size equal");
    expect_search_is_a_sort(Clusters::random(300, 1, 1.0, 2.0, seed), "one cluster");
    expect_search_is_a_sort(Clusters::random(300, 300, 2.0, 1.0, seed), "clusters of one token");
    expect_search_is_a_sort(Clusters::random(300, 300, 1.0, 1.0, seed, 1.0), "clusters of one token, ties");
    expect_search_is_a_sort(Clusters::random(300, 150, 1.0, 1.0, seed, 0.5), "small clusters");
    expect_search_is_a_sort(Clusters::random(1, 1, 1.0, 1.0, seed), "one token");
  }
}

TEST(ClusterSearch, TheMostProbableTokenIsNeverMissed) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    const double spread = 0.25 * static_cast<double>(seed % 24);
    Clusters clusters = Clusters::random(200, 5 + seed % 40, spread, 3 - 0.1 * spread, seed);
    ClusterSearch search = clusters.search(1 + seed % 3);
    expect_same(search.most_probable(clusters.code_log_probs(), 1, no_mass, clusters.rows()),
                prefix(clusters.sorted(), 1, no_mass), "seed " + std::to_string(seed));
  }
}

TEST(ClusterSearch, TokensThatCannotBe) {
  const double never = -1e30, inf = std::numeric_limits<double>::infinity();
  // A biased-away member, a biased-away cluster, and -infinity where softmax still has something to share out.
  expect_search_is_a_sort({{{0, 3}, {1, 4}, {2}}, {1, 2, 0}, {{0, never}, {never, 1}, {0}}}, "members");
  expect_search_is_a_sort({{{0, 3}, {1, 4}, {2}}, {1, never, 0}, {{0, 1}, {2, 1}, {0}}}, "cluster");
  expect_search_is_a_sort({{{0, 3}, {1, 4}, {2}}, {-inf, 2, -inf}, {{0, -inf}, {1, 1}, {0}}}, "infinite");
}

// A token alone in its cluster has log p(v | k) = 0, but computed scores leave a rest of some 1e-7 times their size; the
// bound of the other cluster (a larger log p(k)) must not be passed by it.
TEST(ClusterSearch, RoundingDoesNotLiftATokenAboveItsBound) {
  Clusters clusters({{5}, {1}, {0, 2, 3, 4}}, {1.0, 1.0 + 2e-7, 0.0}, {{0}, {0}, {0, 0, 0, 0}});
  clusters.lift(0, 1e-5f);
  expect_search_is_a_sort(clusters, "lifted");
  ClusterSearch search = clusters.search();
  EXPECT_EQ(search.most_probable(clusters.code_log_probs(), 1, no_mass, clusters.rows()).front().token, 1);
}

TEST(ClusterSearch, APeakedModelNeedsFewClusters) {
  std::int64_t visited = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Clusters clusters = Clusters::random(2000, 200, 4.0, 2.0, seed);
    ClusterSearch search = clusters.search(1, 8);
    search.most_probable(clusters.code_log_probs(), 1, no_mass, clusters.rows());
    visited += search.visited();
    search.sample(
        clusters.code_log_probs(), 1.0f, [] { return 0.3; }, clusters.rows());
    EXPECT_EQ(search.visited(), 1);
  }
  EXPECT_LT(visited, 100 * 10);
}

TEST(ClusterSearch, NotANumberIsRefused) {
  Clusters clusters = Clusters::random(20, 4, 1.0, 1.0, 1);
  ClusterSearch search = clusters.search();
  std::vector<float> codes = clusters.code_log_probs();
  codes[2] = none;
  EXPECT_THROW(search.most_probable(codes, 1, no_mass, clusters.rows()), Error);
  EXPECT_THROW(search.sample(
                   codes, 1.0f, [] { return 0.5; }, clusters.rows()),
               Error);
  for (std::size_t k = 0; k < 4; ++k) clusters.lift(k, none);
  EXPECT_THROW(search.most_probable(clusters.code_log_probs(), 1, no_mass, clusters.rows()), Error);
  EXPECT_THROW(search.sample(
                   clusters.code_log_probs(), 0.5f, [] { return 0.5; }, clusters.rows()),
               Error);
}

struct Sampled {
  const char* name;
  float temperature;
};

class ClusterSampling : public ::testing::TestWithParam<Sampled> {};

// 40,000 draws: a token of p = 0.05 is seen within 2 % of its share, so a wrong power or an acceptance without S_k shows.
TEST_P(ClusterSampling, FollowsTheProbabilities) {
  const double temperature = static_cast<double>(GetParam().temperature);
  Clusters cases[] = {Clusters::random(60, 7, 1.0, 1.0, 1), Clusters::random(60, 60, 1.0, 1.0, 2),
                      Clusters::random(60, 1, 1.0, 1.0, 3), Clusters::random(60, 9, 0.3, 3.0, 4)};
  for (Clusters& clusters : cases) {
    ClusterSearch search = clusters.search();
    std::vector<std::int64_t> counts(60, 0);
    const Philox rng(11, "draws");
    std::uint64_t index = 0;
    const auto uniform = [&] { return static_cast<double>(rng.uniform(index++)); };
    for (int i = 0; i < 40'000; ++i) {
      ++counts[static_cast<std::size_t>(
          search.sample(clusters.code_log_probs(), GetParam().temperature, uniform, clusters.rows()))];
    }
    EXPECT_LT(chi_square_excess(counts, tempered(clusters.log_probs(), temperature)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Temperatures, ClusterSampling,
                         ::testing::Values(Sampled{"cold", 0.05f}, Sampled{"half", 0.5f}, Sampled{"one", 1.0f},
                                           Sampled{"warm", 1.7f}, Sampled{"hot", 20.0f}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(TokenChoice, MostProbableIsTheBeginningOfASort) {
  for (const double step : {0.0, 1.0}) {
    const Clusters clusters = Clusters::random(300, 300, 2.0, 1.0, 5, step);
    const std::vector<TokenLogProb> sorted = clusters.sorted();
    std::vector<float> row(sorted.size());
    for (const TokenLogProb& t : sorted) row[static_cast<std::size_t>(t.token)] = t.log_prob;
    for (const std::int64_t count : {1, 2, 50, 300}) {
      for (const double mass : {0.0, 0.4, 0.99, no_mass}) {
        expect_same(most_probable_of(row, count, mass), prefix(sorted, count, mass), "row");
      }
    }
    row[7] = none;
    EXPECT_THROW(most_probable_of(row, 1, no_mass), Error);
  }
}

TEST(TokenChoice, DrawNeverTakesTheImpossible) {
  const double inf = std::numeric_limits<double>::infinity();
  std::vector<double> weights;
  const std::vector<double> only_second{-inf, 3.0, -inf};
  for (const double u : {0.0, 0.5, 1 - 0x1p-53}) {
    EXPECT_EQ(draw(
                  only_second, [&] { return u; }, weights),
              1U);
  }
  const std::vector<double> nothing{-inf, -inf};
  EXPECT_THROW(draw(
                   nothing, [] { return 0.5; }, weights),
               Error);
}

}  // namespace
}  // namespace vqlm::testing
