// The algorithms of the stand-in for cuBLASLt (cublaslt_rules.h): proposed in one order, made again from their configuration,
// counted.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/simt/cublaslt_rules.h"

namespace {

/// A 16 x 16 x 16 product of bf16 and what the library knows of it.
struct Square {
  Square() {
    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatrixLayoutCreate(&layout, CUDA_R_16BF, 16, 16, 16);
    cublasLtMatmulPreferenceCreate(&preference);
    const std::uint64_t workspace = 1 << 20;
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                         sizeof(workspace));
  }
  ~Square() {
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(product);
    cublasLtDestroy(handle);
  }
  Square(const Square&) = delete;
  Square& operator=(const Square&) = delete;

  std::vector<cublasLtMatmulAlgo_t> algorithms(int asked, std::uint32_t schemes) {
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                         sizeof(schemes));
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(asked));
    int found = 0;
    EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, product, layout, layout, layout, layout, preference, asked,
                                             results.data(), &found),
              CUBLAS_STATUS_SUCCESS);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < found; ++i) algorithms.push_back(results[static_cast<std::size_t>(i)].algo);
    return algorithms;
  }
  cublasStatus_t check(const cublasLtMatmulAlgo_t& algorithm) {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle, product, layout, layout, layout, layout, &algorithm, &result);
  }

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t layout = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
};

template <class T>
T attribute(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t which) {
  T value{};
  std::size_t written = 0;
  EXPECT_EQ(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, which, &value, sizeof(value), &written),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(written, sizeof(value));
  return value;
}

int id_of(const cublasLtMatmulAlgo_t& algorithm) {
  return attribute<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID);
}

TEST(CublasLtAlgorithms, TheHeuristicsOrderDoesNotDependOnHowManyAreAsked) {
  Square square;
  const auto all = square.algorithms(8, CUBLASLT_REDUCTION_SCHEME_MASK);
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(id_of(all[0]), simt::slow_algorithm);
  EXPECT_EQ(id_of(all[1]), simt::lost_algorithm);
  EXPECT_EQ(id_of(all[3]), simt::split_algorithm);
  EXPECT_EQ(attribute<std::int32_t>(all[3], CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 3);
  EXPECT_EQ(id_of(square.algorithms(1, CUBLASLT_REDUCTION_SCHEME_MASK).front()), simt::slow_algorithm);
  // Of those that split K only what the mask allows.
  for (const auto& algorithm : square.algorithms(8, CUBLASLT_REDUCTION_SCHEME_INPLACE))
    EXPECT_NE(id_of(algorithm), simt::split_algorithm);
}

TEST(CublasLtAlgorithms, AreMadeAgainFromTheirConfigurationButForOne) {
  Square square;
  cublasLtMatmulAlgo_t made{};
  const auto init = [&](int id) {
    return cublasLtMatmulAlgoInit(square.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF,
                                  CUDA_R_16BF, id, &made);
  };
  EXPECT_EQ(init(99), CUBLAS_STATUS_INVALID_VALUE);
  for (const auto& algorithm : square.algorithms(8, CUBLASLT_REDUCTION_SCHEME_MASK)) {
    EXPECT_EQ(square.check(algorithm), CUBLAS_STATUS_SUCCESS) << "as proposed";
    ASSERT_EQ(init(id_of(algorithm)), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(square.check(made), CUBLAS_STATUS_NOT_SUPPORTED) << "bare";
    for (const auto which :
         {CUBLASLT_ALGO_CONFIG_TILE_ID, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
          CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, CUBLASLT_ALGO_CONFIG_STAGES_ID}) {
      const auto value = attribute<std::uint32_t>(algorithm, which);
      EXPECT_EQ(cublasLtMatmulAlgoConfigSetAttribute(&made, which, &value, 2), CUBLAS_STATUS_INVALID_VALUE);
      EXPECT_EQ(cublasLtMatmulAlgoConfigSetAttribute(&made, which, &value, sizeof(value)), CUBLAS_STATUS_SUCCESS);
    }
    EXPECT_EQ(square.check(made),
              id_of(algorithm) == simt::lost_algorithm ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS);
  }
}

TEST(CublasLtAlgorithms, AreCountedAndOneOfThemIsUnsteady) {
  Square square;
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  // Ones and twos: sums of 16 products are exact, whatever their order.
  std::vector<std::uint16_t> a(256);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = i % 3 == 0 ? 0x4000 : 0x3f80;
  alignas(256) static std::uint16_t operand[256], result[256];
  alignas(256) static std::byte scratch[8192];
  std::copy(a.begin(), a.end(), operand);
  const float alpha = 1, beta = 0;
  std::vector<std::uint16_t> expected;
  for (const auto& algorithm : square.algorithms(8, CUBLASLT_REDUCTION_SCHEME_MASK)) {
    const std::int64_t before = simt::products_by(id_of(algorithm));
    std::vector<std::uint16_t> results[2];
    for (auto& one : results) {
      ASSERT_EQ(
          cublasLtMatmul(square.handle, square.product, &alpha, operand, square.layout, operand, square.layout, &beta,
                         result, square.layout, result, square.layout, &algorithm, scratch, sizeof(scratch), stream),
          CUBLAS_STATUS_SUCCESS);
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      one.assign(result, result + 256);
    }
    EXPECT_EQ(simt::products_by(id_of(algorithm)), before + 2);
    if (expected.empty()) expected = results[0];
    if (id_of(algorithm) == simt::unsteady_algorithm) {
      EXPECT_NE(results[0], results[1]);
    } else {
      EXPECT_EQ(results[0], results[1]);
      EXPECT_EQ(results[0], expected) << id_of(algorithm);
    }
  }
  cudaStreamDestroy(stream);
}

}  // namespace
