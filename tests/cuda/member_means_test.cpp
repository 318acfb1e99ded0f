// Codes plus the means of their clusters' members on the device, and the gradient back, against the CPU's on the same
// numbers.
#include <gtest/gtest.h>

#include "tests/cuda/member_map.h"

namespace vqlm::testing {
namespace {

class CudaMemberMeansTest : public CudaOpTest, public ::testing::WithParamInterface<MemberCase> {};

TEST_P(CudaMemberMeansTest, EqualsHost) {
  const MemberCase c = GetParam();
  MemberMap map(c);
  const DeviceMemberMap device_map(*device, map);
  for (const std::int64_t offset : {0, 1}) {
    HostF32 codebook = random_bf16({c.clusters(), c.d()}, "codes"),
            members = random_bf16(c.codebook_shape(), "members");
    HostF32 expected(codebook.shape());
    oracle->run(AddMemberMeans{.out = expected, .codebook = codebook, .members = members, .map = map.view()});
    const DeviceArray out = output(expected.shape(), DType::bf16, offset);
    device->run(AddMemberMeans{
        .out = out, .codebook = bf16(codebook, offset), .members = bf16(members, offset), .map = device_map.view()});
    // Both sides add a cluster's numbers, each below max |u|; the device rounds the result once.
    const double sums = 2 * u32 * static_cast<double>(map.largest_cluster + 2) * max_abs(members.doubles());
    expect_close(out.download(), expected.doubles(), rounded_once(expected.doubles(), sums), "out");
  }
}

TEST_P(CudaMemberMeansTest, BackwardEqualsHost) {
  const MemberCase c = GetParam();
  MemberMap map(c);
  const DeviceMemberMap device_map(*device, map);
  for (const std::int64_t offset : {0, 1}) {
    HostF32 dout = random_normal({c.clusters(), c.d()}, "dout"), codes = random_normal(dout.shape(), "dcodes");
    HostF32 members = random_normal(c.codebook_shape(), "dmembers");
    const DeviceArray dcodebook = upload(codes, offset), dmembers = upload(members, offset);
    device->run(AddMemberMeansBackward{
        .dcodebook = dcodebook, .dmembers = dmembers, .dout = upload(dout, offset), .map = device_map.view()});
    oracle->run(AddMemberMeansBackward{.dcodebook = codes, .dmembers = members, .dout = dout, .map = map.view()});
    // One product and one sum, which a side may fuse.
    const double bound = 3 * u32 * (max_abs(dout.doubles()) + max_abs(members.doubles()));
    expect_close(dcodebook.download(), codes.doubles(), u32 * 2 * max_abs(codes.doubles()), "dcodebook");
    expect_close(dmembers.download(), members.doubles(), bound, "dmembers");
  }
}

INSTANTIATE_TEST_SUITE_P(Maps, CudaMemberMeansTest,
                         ::testing::Values(with_own_vectors("Packs", 1, 64, {20, 31, 1, 45}),
                                           with_own_vectors("OddWidth", 1, 67, {11, 30}),
                                           with_own_vectors("SeveralBlocksARow", 1, 1160, {3, 2}),
                                           with_own_vectors("OddSeveralBlocksARow", 1, 259, {1, 4})),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm::testing
