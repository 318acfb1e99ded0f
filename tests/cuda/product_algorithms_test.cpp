// The choice of algorithms for matrix products: candidates compute the product, choices are taken, counted and refused.
#include <gmock/gmock.h>

#include "core/product_algorithms.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

using ::testing::HasSubstr;

class CudaProductAlgorithmsTest : public CudaOpTest {
 protected:
  static constexpr std::int64_t m = 64, n = 128, k = 136;

  ProductAlgorithms& algorithms() { return *product_algorithms_of(*device); }
  /// c (m, n) f32 += a^T b, as a weight's gradient.
  ProductShape gradient_shape() const {
    return {.m = m,
            .n = n,
            .k = k,
            .ta = Transpose::yes,
            .accumulate = Accumulate::yes,
            .operands = DType::bf16,
            .result = DType::f32,
            .leading_a = m,
            .leading_b = n,
            .leading_c = n};
  }
  /// Operands at the addresses of new blocks, as the shape says.
  const Buffer storage = device->allocate((k * m + k * n) * 2 + m * n * 4, MemoryUse::workspace);
  const Tensor a = Tensor(storage.data(), DType::bf16, {k, m});
  const Tensor b = Tensor(static_cast<std::byte*>(storage.data()) + k * m * 2, DType::bf16, {k, n});
  const Tensor c = Tensor(static_cast<std::byte*>(b.data()) + k * n * 2, DType::f32, {m, n});
  const HostF32 host_a = random_bf16({k, m}, "a"), host_b = random_bf16({k, n}, "b");
  const HostF32 earlier = random_bf16({m, n}, "c");

  void SetUp() override {
    upload_bf16(a, host_a);
    upload_bf16(b, host_b);
    begin();
  }
  void upload_bf16(Tensor to, const HostF32& from) {
    std::vector<std::uint16_t> bits;
    for (const float value : from.values()) bits.push_back(bf16_bits(value));
    device->copy_from_host(to, bits.data());
  }
  void begin() { device->copy_from_host(c, earlier.values().data()); }
  void run_op() { device->run(Matmul{.c = c, .a = a, .b = b, .ta = Transpose::yes, .accumulate = Accumulate::yes}); }
  HostF32 result() {
    HostF32 host({m, n});
    device->copy_to_host(host.tensor().data(), c);
    return host;
  }
  HostF32 by(const std::optional<ProductAlgorithm>& algorithm) {
    begin();
    algorithms().prepare(algorithm, gradient_shape())(a.data(), b.data(), c.data());
    return result();
  }
};

TEST_F(CudaProductAlgorithmsTest, TellsWhereItIs) {
  const ProductMachine machine = algorithms().machine();
  EXPECT_EQ(machine.device, cuda_device(0).name);
  EXPECT_EQ(machine.compute_capability, cuda_device(0).compute_capability);
  EXPECT_EQ(machine.library, "cuBLASLt " + cuda_versions().cublaslt);
  EXPECT_GT(algorithms().cache_bytes(), 0u);
  EXPECT_EQ(product_algorithms_of(*oracle), nullptr);
}

TEST_F(CudaProductAlgorithmsTest, EveryCandidateComputesTheProduct) {
  HostF32 expected = earlier.clone(), left = host_a.clone(), right = host_b.clone();
  oracle->run(Matmul{.c = expected, .a = left, .b = right, .ta = Transpose::yes, .accumulate = Accumulate::yes});
  const auto candidates = algorithms().candidates(gradient_shape(), 8);
  ASSERT_GE(candidates.algorithms.size(), 1u);
  ASSERT_LE(candidates.algorithms.size(), 8u);
  run_op();
  const HostF32 of_op = result();
  expect_equal(by(candidates.algorithms.front()), of_op, "the library's first one, which ops take");
  for (const auto& algorithm : candidates.algorithms) {
    const HostF32 computed = by(algorithm);
    // Products of two bf16 are exact in fp32; k + 1 terms of size up to 16 are added in some order on both sides.
    for (std::int64_t i = 0; i < computed.size(); ++i)
      EXPECT_NEAR(computed[i], expected[i], 2 * (k + 1) * u32 * 16 * (k + 1))
          << (algorithm ? algorithm->str() : "first");
    EXPECT_EQ(algorithms().candidates(gradient_shape(), 1).algorithms.size(), 1u);
  }
}

TEST_F(CudaProductAlgorithmsTest, AChoiceIsTakenAndCounted) {
  const auto candidates = algorithms().candidates(gradient_shape(), 8).algorithms;
  const auto chosen = candidates.back();
  const HostF32 expected = by(chosen);
  algorithms().choose({{gradient_shape(), chosen}}, "a file");
  EXPECT_TRUE(algorithms().uses().empty());
  for (int call = 0; call < 2; ++call) {
    begin();
    run_op();
    expect_equal(result(), expected, "the op");
  }
  // Written in place of added to, it is another product.
  device->run(Matmul{.c = c, .a = a, .b = b, .ta = Transpose::yes, .accumulate = Accumulate::no});
  const auto uses = algorithms().uses();
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].shape.accumulate, Accumulate::no);
  EXPECT_FALSE(uses[0].chosen);
  EXPECT_EQ(uses[0].calls, 1);
  EXPECT_TRUE(uses[1].chosen);
  EXPECT_EQ(uses[1].calls, 2);
  EXPECT_EQ(uses[1].shape, gradient_shape());
  algorithms().choose({}, "");
  begin();
  run_op();
  EXPECT_FALSE(algorithms().uses().at(0).chosen);
}

TEST_F(CudaProductAlgorithmsTest, AnAlgorithmThatTheLibraryDoesNotHaveIsRefused) {
  ProductAlgorithm nobodys;
  nobodys.id = 1 << 20;
  EXPECT_THAT(algorithms().refusal(gradient_shape(), nobodys), HasSubstr("cublasLtMatmulAlgoInit"));
  EXPECT_THROW(algorithms().prepare(nobodys, gradient_shape()), Error);
  algorithms().choose({{gradient_shape(), nobodys}}, "products.json");
  try {
    run_op();
    FAIL() << "computed by an algorithm that there is not";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("products.json: cuBLASLt refuses the algorithm for a product of 64 x 128 x 136"));
    EXPECT_THAT(error.what(), HasSubstr("id 1048576"));
  }
  algorithms().choose({}, "");
  run_op();
}

TEST_F(CudaProductAlgorithmsTest, OfSplitSumsOnlyThoseInFp32AreProposed) {
  ProductShape rounded = gradient_shape();
  rounded.result = DType::bf16;
  constexpr std::uint32_t in_place = 1, output_type = 4;  // cublasLtReductionScheme_t
  for (const auto& algorithm : algorithms().candidates(rounded, 8).algorithms) {
    const bool splits = algorithm && algorithm->split_k > 1;
    EXPECT_TRUE(!splits || (algorithm->reduction_scheme & (in_place | output_type)) == 0) << algorithm->str();
  }
}

TEST_F(CudaProductAlgorithmsTest, ASplitSumThatRoundsItsPartsIsRefused) {
  ProductShape rounded = gradient_shape();
  rounded.result = DType::bf16;
  ProductAlgorithm split = algorithms().candidates(rounded, 1).algorithms.front().value_or(ProductAlgorithm{});
  EXPECT_EQ(algorithms().refusal(rounded, split), "");
  split.split_k = 2;
  split.reduction_scheme = 4;  // CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE
  EXPECT_THAT(algorithms().refusal(rounded, split), HasSubstr("reduction scheme 4 rounds the parts of a sum"));
}

}  // namespace
}  // namespace vqlm::testing
