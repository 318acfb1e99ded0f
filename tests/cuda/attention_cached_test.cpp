// Attention over a cache on the device, part by part, against the CPU's on the same numbers.
#include <gtest/gtest.h>

#include "tests/core/cached_attention.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaAttentionCachedTest : public CudaOpTest, public ::testing::WithParamInterface<CachedCase> {};

TEST_P(CudaAttentionCachedTest, EqualsHost) {
  const CachedCase& c = GetParam();
  const AttentionShape whole = c.whole();
  const HostF32 qkv = random_bf16({whole.batch, whole.seq_len, whole.row()}, "qkv");
  // Every position may change the maximum.
  const HostI32 cut = random_documents(whole);
  const AttentionError error =
      attention_error(whole, qkv, [](std::int64_t t) { return static_cast<double>(t); }, c.documents ? &cut : nullptr);
  HostI32 host_documents = with_capacity(cut, whole.seq_len + 3);
  const DeviceArray device_documents = upload(host_documents);
  const Shape cache{whole.batch, whole.kv_heads, whole.seq_len + 3, whole.head_dim};
  HostF32 host_keys = poisoned(cache), host_values = poisoned(cache);
  const DeviceArray keys = output(cache), values = output(cache);
  const std::int64_t width = std::int64_t{whole.heads} * whole.head_dim;
  std::int64_t past = 0;
  for (std::size_t index = 0; index < c.parts.size(); ++index) {
    const std::int64_t rows = c.parts[index];
    HostF32 part = rows_of_sequences(qkv, past, rows), expected({whole.batch, rows, width});
    const DeviceArray out = output({whole.batch, rows, width}), part_qkv = bf16(part);
    oracle->run(AttentionCached{.out = expected,
                                .keys = host_keys,
                                .values = host_values,
                                .qkv = part,
                                .shape = c.part(index),
                                .past = past,
                                .documents = c.documents ? host_documents.tensor() : Tensor{}});
    device->run(AttentionCached{.out = out,
                                .keys = keys,
                                .values = values,
                                .qkv = part_qkv,
                                .shape = c.part(index),
                                .past = past,
                                .documents = c.documents ? device_documents.tensor() : Tensor{}});
    std::vector<double> bound;
    for (std::int64_t i = 0; i < expected.size(); ++i) {
      const std::int64_t b = i / (rows * width);
      const auto at = static_cast<std::size_t>((b * whole.seq_len + past) * width + i % (rows * width));
      // The result is rounded to bf16, and by the tensor cores of a prompt's first part p, too.
      const double of_p = past == 0 && rows > 1 ? u16 : 0;
      bound.push_back(u16 * std::abs(double{expected[i]}) +
                      (1 + u16) * (2 * error.relative[at] + of_p) * error.weight[at]);
    }
    expect_close(out.download(), expected.doubles(), bound, "rows from " + std::to_string(past) + " on");
    past += rows;
  }
  // What the cache holds is qkv's bits; behind them stands what stood there.
  const HostF32 device_keys = keys.download(), device_values = values.download();
  for (std::int64_t i = 0; i < host_keys.size(); ++i) {
    ASSERT_TRUE(device_keys[i] == host_keys[i] || (std::isnan(device_keys[i]) && std::isnan(host_keys[i])))
        << "keys, element " << i;
    ASSERT_TRUE(device_values[i] == host_values[i] || (std::isnan(device_values[i]) && std::isnan(host_values[i])))
        << "values, element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CudaAttentionCachedTest,
    ::testing::Values(CachedCase{"StepByStep", {2, 0, 4, 2, 32}, {1, 1, 1, 1, 1}},
                      // Several parts of the positions, combined; groups of 1, 3, 4 and 8 query heads.
                      CachedCase{"ManyPositions", {2, 0, 3, 1, 64}, {300, 1, 1}},
                      CachedCase{"Wide", {1, 0, 4, 1, 128}, {140, 1}},
                      CachedCase{"LargeGroups", {1, 0, 16, 2, 32}, {130, 1}},
                      CachedCase{"PromptInParts", {1, 0, 2, 2, 64}, {5, 130, 1}},
                      CachedCase{"Window", {2, 0, 4, 2, 32, 0, 3}, {5, 1, 1, 3, 1}},
                      CachedCase{"LongWindow", {1, 0, 2, 1, 64, 0, 150}, {140, 20, 1, 200, 1}},
                      CachedCase{"Documents", {2, 0, 4, 2, 32}, {150, 1, 60, 1, 1}, true},
                      CachedCase{"NoSequences", {0, 0, 2, 2, 64}, {5, 1}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(CudaOpTest, AttentionCachedRepeatsBitForBit) {
  const AttentionShape shape{1, 1, 4, 2, 32};
  const DeviceArray qkv = bf16(random_bf16({1, 1, shape.row()}, "qkv")), out = output({1, 1, 128}),
                    again = output({1, 1, 128});
  const DeviceArray keys = bf16(random_bf16({1, 2, 400, 32}, "keys")),
                    values = bf16(random_bf16({1, 2, 400, 32}, "values"));
  device->run(AttentionCached{.out = out, .keys = keys, .values = values, .qkv = qkv, .shape = shape, .past = 399});
  device->run(AttentionCached{.out = again, .keys = keys, .values = values, .qkv = qkv, .shape = shape, .past = 399});
  expect_equal(out.download(), again.download(), "out");
}

}  // namespace
}  // namespace vqlm::testing
