// Codes plus the means of their clusters' members, and the gradient back.
#include <gtest/gtest.h>

#include <tuple>

#include "tests/core/member_map.h"

namespace vqlm::testing {
namespace {

/// (K, d): codes plus means, in double.
std::vector<double> reference(const MemberMap& map, std::int64_t width, const std::vector<double>& codebook,
                              const std::vector<double>& members) {
  std::vector<double> out = codebook;
  for (std::int64_t k = 0; k + 1 < map.member_begin.size(); ++k) {
    const std::int64_t begin = map.member_begin[k], end = map.member_begin[k + 1];
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = 0; j < width; ++j) {
        out[static_cast<std::size_t>(k * width + j)] +=
            members[static_cast<std::size_t>(i * width + j)] / static_cast<double>(end - begin);
      }
    }
  }
  return out;
}

class MemberMeansTest : public OpTest, public ::testing::WithParamInterface<MemberCase> {};

TEST_P(MemberMeansTest, CodesPlusMeans) {
  const MemberCase c = GetParam();
  MemberMap map(c);
  HostF32 codebook = random_normal({c.clusters(), c.d()}, "codes");
  HostF32 members = random_normal(c.codebook_shape(), "members"), out = poisoned(codebook.shape());
  backend->run(AddMemberMeans{.out = out, .codebook = codebook, .members = members, .map = map.view()});
  const std::vector<double> expected = reference(map, c.d(), codebook.doubles(), members.doubles());
  // m additions of numbers below max |u|, a division and the last addition.
  const double largest = max_abs(members.doubles());
  std::vector<double> bound;
  for (std::int64_t k = 0; k < c.clusters(); ++k) {
    const auto size = static_cast<double>(c.cluster_sizes[static_cast<std::size_t>(k)]);
    for (std::int64_t j = 0; j < c.d(); ++j) {
      const double y = std::abs(expected[static_cast<std::size_t>(k * c.d() + j)]);
      bound.push_back(u32 * ((size + 2) * largest + y));
    }
  }
  expect_close(out, expected, bound, "out");
}

TEST_P(MemberMeansTest, BackwardAccumulatesFiniteDifferences) {
  const MemberCase c = GetParam();
  MemberMap map(c);
  HostF32 dout = random_normal({c.clusters(), c.d()}, "dout");
  HostF32 dcodebook = random_normal(dout.shape(), "dcodes"), dmembers = random_normal(c.codebook_shape(), "dmembers");
  const std::vector<double> before_codes = dcodebook.doubles(), before_members = dmembers.doubles();
  backend->run(AddMemberMeansBackward{.dcodebook = dcodebook, .dmembers = dmembers, .dout = dout, .map = map.view()});
  HostF32 codebook = random_normal(dout.shape(), "codes"), members = random_normal(c.codebook_shape(), "members");
  const auto loss = [&](const std::vector<double>& codes, const std::vector<double>& vectors) {
    const std::vector<double> out = reference(map, c.d(), codes, vectors);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += dout[static_cast<std::int64_t>(i)] * out[i];
    return sum;
  };
  std::vector<double> of_codes =
      numeric_gradient([&](const auto& x) { return loss(x, members.doubles()); }, codebook.doubles());
  std::vector<double> of_members =
      numeric_gradient([&](const auto& x) { return loss(codebook.doubles(), x); }, members.doubles());
  for (std::size_t i = 0; i < of_codes.size(); ++i) of_codes[i] += before_codes[i];
  for (std::size_t i = 0; i < of_members.size(); ++i) of_members[i] += before_members[i];
  // A product and a sum of numbers below 6, and the differences' own error (op_testing.h).
  const double bound = 2 * u32 * 12 + 1e-7;
  expect_close(dcodebook, of_codes, bound, "dcodebook");
  expect_close(dmembers, of_members, bound, "dmembers");
}

INSTANTIATE_TEST_SUITE_P(Maps, MemberMeansTest,
                         ::testing::Values(with_own_vectors("Uneven", 1, 13, {5, 1, 9, 2}),
                                           with_own_vectors("OneCluster", 1, 16, {11}),
                                           with_own_vectors("ClustersOfOne", 1, 3, {1, 1, 1}),
                                           with_own_vectors("OneColumn", 1, 1, {4, 7})),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(MemberMeans, SameForAnyNumberOfThreads) {
  const MemberCase c = with_own_vectors("case", 1, 67, {300, 1, 45, 80});
  MemberMap map(c);
  HostF32 codebook = random_normal({c.clusters(), c.d()}, "codes"), members = random_normal(c.codebook_shape(), "m");
  const auto run = [&](int threads) {
    const auto backend = make_cpu_backend(threads);
    HostF32 out(codebook.shape()), dcodebook(codebook.shape()), dmembers = random_normal(members.shape(), "dm");
    backend->run(AddMemberMeans{.out = out, .codebook = codebook, .members = members, .map = map.view()});
    backend->run(AddMemberMeansBackward{.dcodebook = dcodebook, .dmembers = dmembers, .dout = out, .map = map.view()});
    return std::tuple(std::move(out), std::move(dcodebook), std::move(dmembers));
  };
  const auto one = run(1), three = run(3);
  expect_equal(std::get<0>(one), std::get<0>(three), "out");
  expect_equal(std::get<1>(one), std::get<1>(three), "dcodebook");
  expect_equal(std::get<2>(one), std::get<2>(three), "dmembers");
}

}  // namespace
}  // namespace vqlm::testing
