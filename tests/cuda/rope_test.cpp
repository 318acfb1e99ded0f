#include <sstream>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaRopeTest : public CudaOpTest, public ::testing::WithParamInterface<AttentionShape> {
 protected:
  static HostF32 random_qkv(const AttentionShape& shape) {
    return random_bf16({shape.batch, shape.seq_len, shape.row()}, "qkv");
  }
  /// One rounding to bf16, and in units of the largest pair: 6 u32 on the CPU; on the GPU the remainder of the angle in turns, its
  /// product with 2 pi (3 roundings of at most pi) and sincosf (2 ulp of 2 u32) give 14, the products and the sum 6.
  static std::vector<double> bound_of(const HostF32& rotated) {
    return rounded_once(rotated.doubles(), 26 * u32 * 1.5 * max_abs(rotated.doubles()));
  }
};

TEST_P(CudaRopeTest, ForwardAndBackwardEqualTheOracle) {
  const AttentionShape& shape = GetParam();
  for (const double theta : {10'000.0, 500'000.0}) {
    HostArray<double> frequencies({shape.head_dim / 2});
    for (std::int64_t i = 0; i < frequencies.size(); ++i) {
      frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / shape.head_dim);
    }
    const DeviceArray device_frequencies = upload(frequencies);
    // The second theta goes with a continued sequence.
    const std::int64_t first = theta == 500'000.0 ? 1'001 : 0;
    const RopePositions on_device{device_frequencies, first}, on_host{frequencies, first};
    HostF32 forward = random_qkv(shape), backward = forward.clone();
    const DeviceArray qkv = bf16(forward), dqkv = bf16(backward, 1);  // 1: not aligned for packs
    device->run(RopeForward{.qkv = qkv, .shape = shape, .positions = on_device});
    device->run(RopeBackward{.dqkv = dqkv, .shape = shape, .positions = on_device});
    oracle->run(RopeForward{.qkv = forward, .shape = shape, .positions = on_host});
    oracle->run(RopeBackward{.dqkv = backward, .shape = shape, .positions = on_host});
    expect_close(qkv.download(), forward.doubles(), bound_of(forward), "qkv");
    expect_close(dqkv.download(), backward.doubles(), bound_of(backward), "dqkv");
  }
}

TEST_P(CudaRopeTest, FirstPositionsAndValuesStay) {
  const AttentionShape& shape = GetParam();
  const HostF32 before = random_qkv(shape);
  const DeviceArray qkv = bf16(before), frequencies = upload(HostArray<double>({shape.head_dim / 2}, 0.7));
  device->run(RopeForward{.qkv = qkv, .shape = shape, .positions = {.frequencies = frequencies}});
  const HostF32 after = qkv.download();
  const std::int64_t rotated_columns = static_cast<std::int64_t>(shape.heads + shape.kv_heads) * shape.head_dim;
  for (std::int64_t row = 0; row < shape.batch * shape.seq_len; ++row) {
    for (std::int64_t i = row % shape.seq_len == 0 ? 0 : rotated_columns; i < shape.row(); ++i) {
      ASSERT_EQ(after[row * shape.row() + i], before[row * shape.row() + i]) << "row " << row << ", column " << i;
    }
  }
}

std::string shape_name(const ::testing::TestParamInfo<AttentionShape>& parameter) {
  const AttentionShape& s = parameter.param;
  std::ostringstream name;
  name << "B" << s.batch << "T" << s.seq_len << "H" << s.heads << "K" << s.kv_heads << "D" << s.head_dim;
  return name.str();
}

// The last: positions whose angles a float does not hold.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaRopeTest,
                         ::testing::Values(AttentionShape{1, 1, 1, 1, 2}, AttentionShape{2, 7, 3, 1, 6},
                                           AttentionShape{3, 65, 4, 2, 16}, AttentionShape{2, 129, 3, 1, 64},
                                           AttentionShape{2, 33, 2, 1, 128}, AttentionShape{2, 33, 1, 1, 130},
                                           AttentionShape{1, 3, 1, 1, 1040}, AttentionShape{0, 7, 1, 1, 64},
                                           AttentionShape{1, 70'000, 1, 1, 4}),
                         shape_name);

}  // namespace
}  // namespace vqlm::testing
