// Rows sorted by cluster, and the commitment loss, on the device.
#include <gtest/gtest.h>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

struct Sorting {
  std::int64_t rows, vocabulary, clusters;
};

class CudaSortRowsByClusterTest : public CudaOpTest, public ::testing::WithParamInterface<Sorting> {};

TEST_P(CudaSortRowsByClusterTest, EqualsHost) {
  const auto [rows, vocabulary, clusters] = GetParam();
  HostI32 cluster_of_token = random_integers<std::int32_t>({vocabulary}, "map", 0, clusters - 1);
  HostI32 targets = random_integers<std::int32_t>({rows}, "targets", -1, vocabulary - 1);
  HostI32 found({rows}), order({rows}), row_begin({clusters + 1});
  CodeMapView map;
  map.cluster_of_token = cluster_of_token;
  oracle->run(
      SortRowsByCluster{.clusters = found, .order = order, .row_begin = row_begin, .targets = targets, .map = map});

  const DeviceArray device_map = upload(cluster_of_token), y = upload(targets),
                    device_found = output({rows}, DType::i32), device_order = output({rows}, DType::i32),
                    device_begin = output({clusters + 1}, DType::i32);
  map.cluster_of_token = device_map;
  device->run(SortRowsByCluster{
      .clusters = device_found, .order = device_order, .row_begin = device_begin, .targets = y, .map = map});
  expect_equal(device_found.download<std::int32_t>(), found, "clusters");
  expect_equal(device_order.download<std::int32_t>(), order, "order");
  expect_equal(device_begin.download<std::int32_t>(), row_begin, "row_begin");
}

// More clusters than rows leaves empty ones; one token in the vocabulary leaves half of the rows without target.
INSTANTIATE_TEST_SUITE_P(Sizes, CudaSortRowsByClusterTest,
                         ::testing::Values(Sorting{1, 1, 1}, Sorting{50, 1, 3}, Sorting{7, 400, 300},
                                           Sorting{1000, 211, 17}, Sorting{0, 5, 3}),
                         [](const auto& test) {
                           return std::to_string(test.param.rows) + "rows" + std::to_string(test.param.clusters) +
                                  "clusters";
                         });

class CudaCommitmentTest : public CudaOpTest, public ::testing::WithParamInterface<std::int64_t> {};

TEST_P(CudaCommitmentTest, EqualsHost) {
  const std::int64_t rows = 37, width = GetParam(), codes = 5;
  const float beta = 0.25f, scale = 0.125f;
  HostF32 h = random_bf16({rows, width}, "h"), codebook = random_bf16({codes, width}, "codebook");
  HostF32 dh = random_bf16({rows, width}, "dh"), penalty({rows});
  HostI32 clusters = random_integers<std::int32_t>({rows}, "clusters", -1, codes - 1);
  const DeviceArray device_h = bf16(h), device_codebook = bf16(codebook), device_dh = bf16(dh),
                    device_clusters = upload(clusters), device_penalty = output({rows}, DType::f32);
  oracle->run(Commitment{
      .penalty = penalty, .dh = dh, .h = h, .codebook = codebook, .clusters = clusters, .beta = beta, .scale = scale});
  std::vector<double> bound;  // sums of width squares on both sides
  for (double value : penalty.doubles()) bound.push_back(2 * u32 * static_cast<double>(width + 8) * value);

  device->run(Commitment{.penalty = device_penalty,
                         .h = device_h,
                         .codebook = device_codebook,
                         .clusters = device_clusters,
                         .beta = beta,
                         .scale = scale});
  expect_close(device_penalty.download(), penalty.doubles(), bound, "penalty without gradient");
  device->fill(device_penalty, -1);
  device->run(Commitment{.penalty = device_penalty,
                         .dh = device_dh,
                         .h = device_h,
                         .codebook = device_codebook,
                         .clusters = device_clusters,
                         .beta = beta,
                         .scale = scale});
  expect_close(device_penalty.download(), penalty.doubles(), bound, "penalty");
  // One rounding to bf16; a term scale 2 beta / width (h - c) is below 1 and a few float roundings off.
  expect_close(device_dh.download(), dh.doubles(), rounded_once(dh.doubles(), 16 * u32), "dh");
}

INSTANTIATE_TEST_SUITE_P(Widths, CudaCommitmentTest, ::testing::Values(1, 7, 64, 130, 520));

TEST_P(CudaCommitmentTest, CodesFromAveragesEqualTheHosts) {
  const std::int64_t codes = 300, width = GetParam();
  HostF32 sums = random_normal({codes, width}, "sums"), counts = random_normal({codes}, "counts");
  for (std::int64_t k = 0; k < codes; ++k) counts[k] = k % 7 == 0 ? 0.0f : std::abs(counts[k]) + 1e-3f;
  HostF32 codebook = random_normal({codes, width}, "codebook");
  for (const std::int64_t offset : {0, 3}) {
    const DeviceArray device_codebook = upload(codebook, offset), device_sums = upload(sums, offset),
                      device_counts = upload(counts, offset);
    device->run(
        CodesFromAverages{.codebook = device_codebook, .sums = device_sums, .counts = device_counts, .scale = 0.75f});
    HostF32 expected = codebook.clone();
    oracle->run(CodesFromAverages{.codebook = expected, .sums = sums, .counts = counts, .scale = 0.75f});
    std::vector<double> bound;
    for (double value : expected.doubles()) bound.push_back(6 * u32 * std::abs(value));
    expect_close(device_codebook.download(), expected.doubles(), bound, "codebook");
  }
}

}  // namespace
}  // namespace vqlm::testing
