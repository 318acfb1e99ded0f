// The cross entropy among a cluster's members on the device, against the CPU's on the same numbers.
#include <gtest/gtest.h>

#include "core/cuda/member_entropy.h"
#include "tests/cuda/member_map.h"

namespace vqlm::testing {
namespace {

/// What may be lost in each result; see bounds().
struct Bounds {
  std::vector<double> nll, dh, dcodebook, dbias;
};

/// All that member_entropy accumulates.
struct Results {
  HostF32 nll, dh, dcodebook, dbias;
};

class CudaMemberEntropyTest : public CudaOpTest, public ::testing::WithParamInterface<MemberCase> {
 protected:
  CudaMemberEntropyTest() {
    if (c.first_cluster_has_most_rows) {
      for (std::int64_t n = 0; n < c.rows; ++n) {
        if (n % 10 != 0) targets[n] = map.members[map.member_begin[0] + n % c.cluster_sizes[0]];
      }
    }
    oracle->run(SortRowsByCluster{
        .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  }

  Tensor absent_without_groups(Tensor x) const { return c.groups > 0 ? x : Tensor{}; }

  /// Integers at the start, which bf16 holds: adding to them costs one rounding.
  Results initial() const {
    return {random_integers({c.rows}, "nll", -4, 4), random_integers({c.rows, c.d()}, "dh", -4, 4),
            random_integers(codebook.shape(), "dcodebook", -4, 4), random_integers({c.vocabulary()}, "dbias", -4, 4)};
  }
  Results on_host() {
    Results r = initial();
    oracle->run(MemberEntropy{.nll = r.nll,
                              .gradients = {r.dh, absent_without_groups(r.dcodebook), r.dbias, scale},
                              .h = h,
                              .targets = targets,
                              .order = order,
                              .row_begin = row_begin,
                              .member_codebook = absent_without_groups(codebook),
                              .token_bias = bias,
                              .map = map.view()});
    return r;
  }
  /// wave_scores: 0 for the op itself, else the bound of its workspace.
  Results on_device(std::int64_t wave_scores = 0, std::int64_t codebook_offset = 0);
  Bounds bounds();
  void expect_all_close(const Results& actual, const Results& expected);

  static constexpr float scale = 0.25f;
  MemberCase c = GetParam();
  MemberMap map{c};
  HostF32 h = random_bf16({c.rows, c.d()}, "h");
  HostF32 codebook = random_bf16(c.codebook_shape(), "codebook", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  HostI32 targets = random_integers<std::int32_t>({c.rows}, "targets", -1, c.vocabulary() - 1);
  HostI32 clusters{Shape{c.rows}}, order{Shape{c.rows}}, row_begin{Shape{c.clusters() + 1}};
};

Results CudaMemberEntropyTest::on_device(std::int64_t wave_scores, std::int64_t codebook_offset) {
  const Results start = initial();
  const DeviceMemberMap device_map(*device, map);
  const DeviceArray nll = upload(start.nll), dh = bf16(start.dh), dcodebook = upload(start.dcodebook),
                    dbias = upload(start.dbias), rows = bf16(h), u = bf16(codebook, codebook_offset), b = upload(bias),
                    y = upload(targets), sorted = upload(order), begin = upload(row_begin);
  const MemberGradients gradients{dh, absent_without_groups(dcodebook), dbias, scale};
  const MemberEntropy op{.nll = nll,
                         .gradients = gradients,
                         .h = rows,
                         .targets = y,
                         .order = sorted,
                         .row_begin = begin,
                         .member_codebook = absent_without_groups(u),
                         .token_bias = b,
                         .map = device_map.view()};
  if (wave_scores == 0) {
    device->run(op);
  } else {
    cuda::Workspace workspace(*device);
    const cuda::Context context{.stream = static_cast<cudaStream_t>(device->compute_stream().handle),
                                .multiprocessors = 2,
                                .compute_capability = 80,
                                .shared_memory_per_block = 160 * 1024,
                                .workspace = &workspace};
    cuda::members::member_entropy(context, op, wave_scores);
    device->synchronize();
  }
  return {nll.download(), dh.download(), dcodebook.download(), dbias.download()};
}

/// The differences that the arithmetic allows, from the sums of |terms|: f32 sums of the host and of the device (whose
/// tensor cores may round each addition by twice the unit), scores' errors through the softmax, ds and the sums of ds that
/// share a code rounded to bf16 once each, dh once.
Bounds CudaMemberEntropyTest::bounds() {
  Bounds r{std::vector<double>(static_cast<std::size_t>(c.rows)),
           std::vector<double>(static_cast<std::size_t>(h.size())),
           std::vector<double>(static_cast<std::size_t>(codebook.size())),
           std::vector<double>(static_cast<std::size_t>(c.vocabulary()))};
  const double additions = 4 * static_cast<double>(c.rows + c.vocabulary() + 8);
  const double of_sums = c.own_vectors ? 0 : u16;  // no vectors share a code
  for (std::int64_t n = 0; n < c.rows; ++n) {
    if (targets[n] < 0) continue;
    const std::int32_t k = map.cluster_of_token[targets[n]], first = map.member_begin[k];
    std::vector<double> s;
    double terms = 0, sum = 0;
    const auto entry = [&](std::size_t w, std::int64_t i) {
      const std::int64_t g = i / c.width, position = first + static_cast<std::int64_t>(w);
      return (g * c.codes + map.code(position, g)) * c.width + i % c.width;
    };
    const std::int64_t width = c.groups > 0 ? c.d() : 0;
    for (std::size_t w = 0; first + static_cast<std::int32_t>(w) < map.member_begin[k + 1]; ++w) {
      double score = bias[map.members[first + static_cast<std::int32_t>(w)]], magnitude = std::abs(score);
      for (std::int64_t i = 0; i < width; ++i) {
        const double term = double{h[n * c.d() + i]} * codebook[entry(w, i)];
        score += term;
        magnitude += std::abs(term);
      }
      s.push_back(score);
      terms = std::max(terms, magnitude);
    }
    const double largest = *std::max_element(s.begin(), s.end());
    for (double x : s) sum += std::exp(x - largest);
    // Of a score, in both places; the sum's additions; exponentials of x off by 2 + 1.2 |x| units, weighted by exp(x).
    const double score_error = u32 * 8 * static_cast<double>(c.d() + 4) * terms;
    const double lse_error = score_error + u32 * (2 * static_cast<double>(s.size()) + 16);
    r.nll[static_cast<std::size_t>(n)] = score_error + lse_error + 16 * u32 * (terms + 8);
    for (std::size_t w = 0; w < s.size(); ++w) {
      const std::int32_t token = map.members[first + static_cast<std::int32_t>(w)];
      const double log_p = s[w] - largest - std::log(sum), p = std::exp(log_p), hit = token == targets[n] ? 1 : 0;
      const double ds = scale * std::abs(p - hit);
      const double ds_error = scale * p * (score_error + lse_error + u32 * (16 + 3 * std::abs(log_p))) + u16 * ds +
                              scale * 4 * u32 * (p + hit);
      r.dbias[static_cast<std::size_t>(token)] += ds_error + u32 * additions * ds;
      for (std::int64_t i = 0; i < width; ++i) {
        const std::int64_t code = entry(w, i), at = n * c.d() + i;
        r.dh[static_cast<std::size_t>(at)] += (ds_error + u32 * additions * ds) * std::abs(codebook[code]);
        r.dcodebook[static_cast<std::size_t>(code)] += (ds_error + (of_sums + u32 * additions) * ds) * std::abs(h[at]);
      }
    }
  }
  return r;
}

void CudaMemberEntropyTest::expect_all_close(const Results& actual, const Results& expected) {
  Bounds b = bounds();
  const auto with_rounding = [](std::vector<double> bound, const HostF32& x, double unit) {
    for (std::size_t i = 0; i < bound.size(); ++i) bound[i] += unit * (4 + std::abs(x.values()[i]));
    return bound;
  };
  const double additions = static_cast<double>(c.rows + 8);  // host and device add to the start in other orders
  expect_close(actual.nll, expected.nll.doubles(), with_rounding(b.nll, expected.nll, 2 * u32), "nll");
  expect_close(actual.dh, expected.dh.doubles(), with_rounding(b.dh, expected.dh, u16), "dh");
  expect_close(actual.dbias, expected.dbias.doubles(), with_rounding(b.dbias, expected.dbias, additions * u32),
               "dtoken_bias");
  expect_close(actual.dcodebook, expected.dcodebook.doubles(),
               with_rounding(b.dcodebook, expected.dcodebook, additions * u32), "dmember_codebook");
}

TEST_P(CudaMemberEntropyTest, EqualsHostAndAccumulates) {
  expect_all_close(on_device(), on_host());
}

TEST_P(CudaMemberEntropyTest, WavesEqualHost) {
  expect_all_close(on_device(1), on_host());
}

TEST_P(CudaMemberEntropyTest, CodebookAtAnyAddress) {
  expect_all_close(on_device(0, 3), on_host());
}

TEST_P(CudaMemberEntropyTest, RepeatsBitForBit) {
  const Results first = on_device(), second = on_device();
  expect_equal(first.nll, second.nll, "nll");
  expect_equal(first.dh, second.dh, "dh");
  expect_equal(first.dcodebook, second.dcodebook, "dmember_codebook");
  expect_equal(first.dbias, second.dbias, "dtoken_bias");
}

TEST_P(CudaMemberEntropyTest, WithoutGradients) {
  const Results start = initial(), gradients_too = on_device();
  const DeviceMemberMap device_map(*device, map);
  const DeviceArray nll = upload(start.nll), rows = bf16(h), u = bf16(codebook), b = upload(bias), y = upload(targets),
                    sorted = upload(order), begin = upload(row_begin);
  device->run(MemberEntropy{.nll = nll,
                            .h = rows,
                            .targets = y,
                            .order = sorted,
                            .row_begin = begin,
                            .member_codebook = absent_without_groups(u),
                            .token_bias = b,
                            .map = device_map.view()});
  expect_equal(nll.download(), gradients_too.nll, "nll");
}

INSTANTIATE_TEST_SUITE_P(
    Maps, CudaMemberEntropyTest,
    ::testing::Values(
        MemberCase{"PrimeVocabulary", 130, 4, 5, 16, {20, 31, 1, 45, 30}},
        MemberCase{"SingleMembers", 40, 2, 3, 8, {1, 1, 1, 1}}, MemberCase{"OneRow", 1, 2, 16, 4, {30, 7}},
        MemberCase{"VeryUneven", 40, 9, 7, 8, {1, 300, 1, 2, 17}},   // three chunks of members
        MemberCase{"MoreMembersThanBlocks", 4, 2, 9, 8, {1200, 3}},  // 8 blocks of 128 members loop
        MemberCase{"EmptyClustersInTheBatch", 5, 2, 7, 8, {4, 9, 5, 30, 8, 2, 6, 3, 11, 5, 9}},
        MemberCase{"MostRowsInOneCluster", 270, 8, 16, 4, {50, 3, 1, 9}, true},  // several tiles
        MemberCase{"Width1", 33, 10, 2, 1, {11, 12}}, MemberCase{"Width12", 33, 3, 40, 12, {40, 60}},
        MemberCase{"Width24", 90, 8, 256, 24, {140, 3}},                   // two slices of dh
        MemberCase{"OneGroup", 70, 1, 256, 80, {40, 60}},                  // two slices of a group
        MemberCase{"OneCode", 70, 3, 1, 8, {300, 9}},                      // all members in one sum
        MemberCase{"FourSlicesOfAGroup", 150, 1, 200, 200, {400, 7, 90}},  // 128 columns a block
        MemberCase{"LargestClusterUnknown", 130, 4, 5, 16, {20, 31, 1, 45, 30}, false, false},
        MemberCase{"OneCluster", 50, 4, 8, 8, {97}}, MemberCase{"NoGroups", 90, 0, 0, 16, {13, 1, 28, 5}},
        MemberCase{"NoGroupsManyMembers", 70, 0, 0, 16, {2500, 3}},  // counted in two passes
        with_own_vectors("OwnVectors", 130, 64, {20, 31, 1, 45, 30}),
        with_own_vectors("OwnVectorsOfSingleMembers", 40, 16, {1, 1, 1, 1}),
        with_own_vectors("OwnVectorsOneRow", 1, 8, {30, 7}),
        with_own_vectors("OwnVectorsVeryUneven", 40, 72, {1, 300, 1, 2, 17}),
        with_own_vectors("OwnVectorsMoreMembersThanBlocks", 4, 8, {1200, 3}),  // 8 blocks of 64 and of 128 loop
        with_own_vectors("OwnVectorsOfEmptyClusters", 5, 16, {4, 9, 5, 30, 8, 2, 6, 3, 11, 5, 9}),
        with_own_vectors("OwnVectorsMostRowsInOneCluster", 270, 24, {50, 3, 1, 9}, true),  // several tiles
        with_own_vectors("OwnVectorsOddWidth", 33, 13, {11, 12}),
        with_own_vectors("OwnVectorsTwoSlices", 90, 200, {140, 3}),
        with_own_vectors("OwnVectorsLargestUnknown", 130, 64, {20, 31, 1, 45, 30}, false, false)),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(CudaOpTest, MemberEntropyOfRowsWithoutTargets) {
  const MemberCase c{"", 5, 2, 4, 8, {6, 5}};
  const MemberMap map(c);
  const DeviceMemberMap device_map(*device, map);
  const DeviceArray h = bf16(random_bf16({5, 16}, "h")), codebook = bf16(random_bf16({2, 4, 8}, "codebook")),
                    bias = upload(HostF32({11})), targets = upload(HostI32({5}, -1)),
                    clusters = output({5}, DType::i32), order = output({5}, DType::i32),
                    row_begin = output({3}, DType::i32);
  device->run(SortRowsByCluster{
      .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = device_map.view()});
  const DeviceArray nll = upload(HostF32({5}, 3.0f)), dh = bf16(HostF32({5, 16}, 3.0f)),
                    dcodebook = upload(HostF32({2, 4, 8}, 3.0f)), dbias = upload(HostF32({11}, 3.0f));
  device->run(MemberEntropy{.nll = nll,
                            .gradients = {dh, dcodebook, dbias, 1.0f},
                            .h = h,
                            .targets = targets,
                            .order = order,
                            .row_begin = row_begin,
                            .member_codebook = codebook,
                            .token_bias = bias,
                            .map = device_map.view()});
  expect_equal(nll.download(), HostF32({5}, 3.0f), "nll");
  expect_equal(dh.download(), HostF32({5, 16}, 3.0f), "dh");
  expect_equal(dcodebook.download(), HostF32({2, 4, 8}, 3.0f), "dmember_codebook");
  expect_equal(dbias.download(), HostF32({11}, 3.0f), "dtoken_bias");
}

}  // namespace
}  // namespace vqlm::testing
