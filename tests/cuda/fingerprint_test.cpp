#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

using CudaFingerprintTest = CudaOpTest;

TEST_F(CudaFingerprintTest, IsTheCpusNumberAtEveryLengthAndAlignment) {
  for (const std::int64_t n : {0, 1, 3, 7, 8, 65, 1000, 40'001}) {
    for (const std::int64_t offset : {0, 1, 3}) {
      HostF32 x = random_normal({n}, "x");
      EXPECT_EQ(device->fingerprint(upload(x, offset)), oracle->fingerprint(x)) << n << " + " << offset;
      std::vector<std::uint16_t> rounded;
      for (const float value : x.values()) rounded.push_back(bf16_bits(value));
      rounded.push_back(0);  // so that there is a pointer where n = 0
      EXPECT_EQ(device->fingerprint(bf16(x, offset)), oracle->fingerprint(Tensor(rounded.data(), DType::bf16, {n})))
          << n << " + " << offset << ", bf16";
    }
  }
}

TEST_F(CudaFingerprintTest, OneBitChangesIt) {
  HostF32 x = random_normal({1003}, "x");
  const std::uint64_t before = device->fingerprint(upload(x));
  EXPECT_EQ(device->fingerprint(upload(x)), before);
  for (const std::int64_t i : {0, 1, 4, 511, 1002}) {
    HostF32 changed = x.clone();
    changed[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(x[i]) ^ 1u);
    EXPECT_NE(device->fingerprint(upload(changed)), before) << i;
  }
}

// The number is read when the stream's earlier work is done.
TEST_F(CudaFingerprintTest, SeesWhatWasEnqueuedBefore) {
  HostF32 ones({4097}, 1.0f);
  const DeviceArray x = output({4097}, DType::f32);
  device->fill(x, 1.0f);
  EXPECT_EQ(device->fingerprint(x), oracle->fingerprint(ones));
}

}  // namespace
}  // namespace vqlm::testing
