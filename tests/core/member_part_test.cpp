// A cluster's members cut over ranks: the parts' statistics and gradients against the whole cluster's, in double.
#include "tests/core/member_part.h"

#include <gtest/gtest.h>

#include <limits>

namespace vqlm::testing {
namespace {

class MemberPartTest : public OpTest, public ::testing::WithParamInterface<MemberCase> {
 protected:
  MemberPartTest() {
    backend->run(SortRowsByCluster{
        .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  }

  static constexpr float scale = 0.25f;
  MemberCase c = GetParam();
  MemberMap map{c};
  HostF32 h = random_normal({c.rows, c.d()}, "h"), vectors = random_normal(c.codebook_shape(), "vectors", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  HostI32 targets = random_integers<std::int32_t>({c.rows}, "targets", -1, c.vocabulary() - 1);
  HostI32 clusters{Shape{c.rows}}, order{Shape{c.rows}}, row_begin{Shape{c.clusters() + 1}};
  MemberPartBatch batch{c, h, vectors, bias, targets, scale};

  /// (P, N, 3) of all parts.
  HostF32 statistics(Backend& tested, std::int64_t parts) {
    HostF32 all({parts, c.rows, 3}, 7.0f);
    for (std::int64_t p = 0; p < parts; ++p) {
      MemberPart part = member_part(map, p, parts);
      HostF32 rows = part.rows_of(vectors, c.d());
      tested.run(MemberStatistics{.statistics = all.tensor().view({parts * c.rows, 3}).rows(p * c.rows, c.rows),
                                  .h = h,
                                  .targets = targets,
                                  .order = order,
                                  .row_begin = row_begin,
                                  .vectors = rows,
                                  .token_bias = bias,
                                  .map = part.view()});
    }
    return all;
  }
};

TEST_P(MemberPartTest, PartsGiveTheWholeClustersLossAndGradients) {
  for (const int threads : {1, 3}) {
    const auto tested = make_cpu_backend(threads);
    for (const std::int64_t parts : {1, 2, 3}) {
      SCOPED_TRACE(parts);
      HostF32 nll({c.rows}), lse({c.rows}), all = statistics(*tested, parts);
      tested->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = all, .targets = targets});
      for (std::int64_t p = 0; p < parts; ++p) {
        MemberPart part = member_part(map, p, parts);
        const auto expected = batch.gradients(part, 0);
        expect_close(nll, expected.nll.value, expected.nll.bound, "nll");
        HostF32 rows = part.rows_of(vectors, c.d());
        HostF32 dh({c.rows, c.d()}), dvectors(rows.shape()), dbias({c.vocabulary()});
        const MemberPartGradient op{.gradients = {dh, dvectors, dbias, scale},
                                    .h = h,
                                    .lse = lse,
                                    .targets = targets,
                                    .order = order,
                                    .row_begin = row_begin,
                                    .vectors = rows,
                                    .token_bias = bias,
                                    .map = part.view()};
        tested->run(op);
        expect_close(dh, expected.dh.value, expected.dh.bound, "dh");
        expect_close(dvectors, expected.dvectors.value, expected.dvectors.bound, "dvectors");
        expect_close(dbias, expected.dbias.value, expected.dbias.bound, "dbias");
        const std::vector<double> once[] = {dh.doubles(), dvectors.doubles(), dbias.doubles()};
        tested->run(op);  // accumulates
        const HostF32* const both[] = {&dh, &dvectors, &dbias};
        for (std::size_t which = 0; which < 3; ++which) {
          // Sums of as many terms again, added to the first.
          std::vector<double> twice, rounded;
          const double terms = u32 * static_cast<double>(c.rows + c.vocabulary());
          for (const double x : once[which]) twice.push_back(2 * x), rounded.push_back(terms * (1 + std::abs(x)));
          expect_close(*both[which], twice, rounded, "accumulated");
        }
      }
    }
  }
}

TEST_P(MemberPartTest, RowsWithoutMembersInThePartHaveNeutralStatistics) {
  MemberPart part = member_part(map, 0, 3);
  HostF32 all = statistics(*backend, 3);
  for (std::int64_t n = 0; n < c.rows; ++n) {
    const std::int32_t k = targets[n] < 0 ? -1 : map.cluster_of_token[targets[n]];
    if (k >= 0 && part.member_begin[k + 1] > part.member_begin[k]) continue;
    EXPECT_EQ(all[3 * n], std::numeric_limits<float>::lowest());
    EXPECT_EQ(all[3 * n + 1], 0);
    EXPECT_EQ(all[3 * n + 2], 0);
  }
}

TEST_P(MemberPartTest, MeansOfPartsSumToTheClusters) {
  HostF32 codebook({c.clusters(), c.d()}, 0.0f), whole(codebook.shape());
  backend->run(AddMemberMeans{.out = whole, .codebook = codebook, .members = vectors, .map = map.view()});
  HostF32 dout = random_normal(whole.shape(), "dout");
  HostF32 dwhole(vectors.shape(), 0.0f), dcodebook(whole.shape(), 1.0f);
  backend->run(AddMemberMeansBackward{.dcodebook = dcodebook, .dmembers = dwhole, .dout = dout, .map = map.view()});
  std::vector<double> sum(static_cast<std::size_t>(whole.size()));
  for (std::int64_t p = 0; p < 3; ++p) {
    MemberPart part = member_part(map, p, 3);
    HostF32 rows = part.rows_of(vectors, c.d()), means = poisoned(whole.shape());
    backend->run(MemberMeansPart{.means = means, .vectors = rows, .map = part.view()});
    for (std::int64_t i = 0; i < means.size(); ++i) sum[static_cast<std::size_t>(i)] += means[i];
    HostF32 drows(rows.shape(), 0.0f);
    backend->run(AddMemberMeansBackward{.dmembers = drows, .dout = dout, .map = part.view()});
    expect_equal(drows, part.rows_of(dwhole, c.d()), "dmembers");
  }
  // A cluster's numbers below max |u| are added in another order, and shared out once more.
  const double members = static_cast<double>(*std::ranges::max_element(c.cluster_sizes));
  expect_close(whole, sum, u32 * (2 * members + 8) * max_abs(vectors.doubles()), "means");
}

TEST_P(MemberPartTest, MeansAreTheSameForAnyNumberOfThreads) {
  MemberPart part = member_part(map, 1, 2);
  HostF32 rows = part.rows_of(vectors, c.d()), one({c.clusters(), c.d()}), three(one.shape());
  make_cpu_backend(1)->run(MemberMeansPart{.means = one, .vectors = rows, .map = part.view()});
  make_cpu_backend(3)->run(MemberMeansPart{.means = three, .vectors = rows, .map = part.view()});
  expect_equal(one, three, "means");
}

INSTANTIATE_TEST_SUITE_P(Maps, MemberPartTest,
                         ::testing::Values(with_own_vectors("Uneven", 130, 16, {20, 31, 1, 45, 30}),
                                           with_own_vectors("SingleMembers", 40, 8, {1, 1, 1, 1}),
                                           with_own_vectors("OneRow", 1, 13, {30, 7}),
                                           with_own_vectors("FewTokens", 9, 5, {1, 1}),
                                           with_own_vectors("LargeCluster", 40, 24, {1, 300, 1, 2, 17})),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm::testing
