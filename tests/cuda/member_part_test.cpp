// A cluster's members cut over ranks, on the device: each part's statistics and gradients against double precision.
#include "tests/core/member_part.h"

#include <gtest/gtest.h>

#include "core/cuda/member_entropy.h"
#include "tests/cuda/member_map.h"

namespace vqlm::testing {
namespace {

class CudaMemberPartTest : public CudaOpTest, public ::testing::WithParamInterface<MemberCase> {
 protected:
  CudaMemberPartTest() {
    oracle->run(SortRowsByCluster{
        .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  }

  /// Runs the op, or its form with the workspace's bound.
  template <class O, class Bounded>
  void run(const O& op, const Bounded& bounded, std::int64_t wave_scores) {
    if (wave_scores == 0) return device->run(op);
    cuda::Workspace workspace(*device);
    const cuda::Context context{.stream = static_cast<cudaStream_t>(device->compute_stream().handle),
                                .multiprocessors = 2,
                                .compute_capability = 80,
                                .shared_memory_per_block = 160 * 1024,
                                .workspace = &workspace};
    bounded(context, op, wave_scores);
    device->synchronize();
  }
  void expect_parts(std::int64_t parts, std::int64_t wave_scores, std::int64_t offset);

  static constexpr float scale = 0.25f;
  MemberCase c = GetParam();
  MemberMap map{c};
  HostF32 h = random_bf16({c.rows, c.d()}, "h"), vectors = random_bf16(c.codebook_shape(), "vectors", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  HostI32 targets = random_integers<std::int32_t>({c.rows}, "targets", -1, c.vocabulary() - 1);
  HostI32 clusters{Shape{c.rows}}, order{Shape{c.rows}}, row_begin{Shape{c.clusters() + 1}};
};

/// A part's map on the device.
struct DevicePart {
  DevicePart(Backend& device, const MemberPart& part)
      : cluster_of_token(device, part.whole.cluster_of_token),
        position_of_token(device, part.position_of_token),
        members(device, part.members),
        member_begin(device, part.member_begin),
        cluster_sizes(device, part.cluster_sizes) {}
  CodeMapView view() const { return {cluster_of_token, position_of_token, members, member_begin, {}, cluster_sizes}; }
  DeviceArray cluster_of_token, position_of_token, members, member_begin, cluster_sizes;
};

void CudaMemberPartTest::expect_parts(std::int64_t parts, std::int64_t wave_scores, std::int64_t offset) {
  const MemberPartBatch batch{c, h, vectors, bias, targets, scale};
  const DeviceArray rows = bf16(h), b = upload(bias), y = upload(targets), sorted = upload(order),
                    begin = upload(row_begin), all = output({parts, c.rows, 3}, DType::f32),
                    nll = output({c.rows}, DType::f32), lse = output({c.rows}, DType::f32);
  for (std::int64_t p = 0; p < parts; ++p) {
    const MemberPart part = member_part(map, p, parts);
    const DevicePart on_device(*device, part);
    const DeviceArray u = bf16(part.rows_of(vectors, c.d()), offset);
    run(MemberStatistics{.statistics = all.tensor().view({parts * c.rows, 3}).rows(p * c.rows, c.rows),
                         .h = rows,
                         .targets = y,
                         .order = sorted,
                         .row_begin = begin,
                         .vectors = u,
                         .token_bias = b,
                         .map = on_device.view()},
        cuda::members::member_statistics, wave_scores);
  }
  device->run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = all, .targets = y});
  for (std::int64_t p = 0; p < parts; ++p) {
    const MemberPart part = member_part(map, p, parts);
    const DevicePart on_device(*device, part);
    const auto expected = batch.gradients(part, u16);
    expect_close(nll.download(), expected.nll.value, expected.nll.bound, "nll");
    const HostF32 own = part.rows_of(vectors, c.d());
    // Integers at the start, which bf16 holds: adding to them costs a rounding.
    const HostF32 dh_0 = random_integers(h.shape(), "dh", -4, 4),
                  dvectors_0 = random_integers(own.shape(), "du", -4, 4),
                  dbias_0 = random_integers({c.vocabulary()}, "dbias", -4, 4);
    const DeviceArray u = bf16(own, offset), dh = bf16(dh_0), dvectors = upload(dvectors_0), dbias = upload(dbias_0);
    run(MemberPartGradient{.gradients = {dh, dvectors, dbias, scale},
                           .h = rows,
                           .lse = lse,
                           .targets = y,
                           .order = sorted,
                           .row_begin = begin,
                           .vectors = u,
                           .token_bias = b,
                           .map = on_device.view()},
        cuda::members::member_part_gradient, wave_scores);
    const auto expect_added = [](const HostF32& found, const HostF32& start, const Bounded& gradient, double unit) {
      std::vector<double> bound = gradient.bound;
      for (std::size_t i = 0; i < bound.size(); ++i) bound[i] += unit * (4 + std::abs(gradient.value[i]));
      expect_close(found, added(start.doubles(), gradient.value), bound, "gradient");
    };
    const double additions = u32 * static_cast<double>(c.rows + 8);
    expect_added(dh.download(), dh_0, expected.dh, u16);
    expect_added(dvectors.download(), dvectors_0, expected.dvectors, additions);
    expect_added(dbias.download(), dbias_0, expected.dbias, additions);
  }
}

TEST_P(CudaMemberPartTest, PartsGiveTheWholeClustersLossAndGradients) {
  for (const std::int64_t parts : {1, 2, 3}) expect_parts(parts, 0, 0);
}

TEST_P(CudaMemberPartTest, InWaves) {
  expect_parts(2, 1, 0);
}

TEST_P(CudaMemberPartTest, VectorsAtAnyAddress) {
  expect_parts(2, 0, 3);
}

TEST_P(CudaMemberPartTest, MeansOfPartsSumToTheClusters) {
  for (const std::int64_t offset : {0, 1}) {
    for (std::int64_t p = 0; p < 3; ++p) {
      MemberPart part = member_part(map, p, 3);
      const DevicePart on_device(*device, part);
      HostF32 rows = part.rows_of(vectors, c.d()), expected({c.clusters(), c.d()});
      oracle->run(MemberMeansPart{.means = expected, .vectors = rows, .map = part.view()});
      const DeviceArray means = output(expected.shape(), DType::f32, offset);
      device->run(MemberMeansPart{.means = means, .vectors = bf16(rows, offset), .map = on_device.view()});
      const double sums = 2 * u32 * static_cast<double>(rows.size() + 2) * max_abs(rows.doubles());
      expect_close(means.download(), expected.doubles(), sums, "means");
      HostF32 dout = random_normal(expected.shape(), "dout"), drows = random_normal(rows.shape(), "dmembers");
      const DeviceArray dmembers = upload(drows, offset);
      device->run(AddMemberMeansBackward{.dmembers = dmembers, .dout = upload(dout, offset), .map = on_device.view()});
      oracle->run(AddMemberMeansBackward{.dmembers = drows, .dout = dout, .map = part.view()});
      expect_close(dmembers.download(), drows.doubles(), 3 * u32 * (max_abs(dout.doubles()) + max_abs(drows.doubles())),
                   "dmembers");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Maps, CudaMemberPartTest,
                         ::testing::Values(with_own_vectors("Uneven", 130, 64, {20, 31, 1, 45, 30}),
                                           with_own_vectors("SingleMembers", 40, 16, {1, 1, 1, 1}),
                                           with_own_vectors("OddWidth", 33, 13, {11, 12}),
                                           with_own_vectors("OneRow", 1, 8, {30, 7}),
                                           with_own_vectors("LargeCluster", 40, 72, {1, 300, 1, 2, 17}),
                                           with_own_vectors("TwoSlices", 90, 200, {140, 3})),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm::testing
