// The stand-in for cuBLASLt: every order and transposition in bf16 and fp32 against a plain loop. Small integers: the
// sums are exact, and results up to 256 are exact in bf16.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/simt/cublaslt_rules.h"

namespace {

struct MatmulCase {
  bool turn_a, turn_b;
  cublasLtOrder_t order;
  cudaDataType operands, output;
};

float read(const std::vector<std::uint32_t>& storage, cudaDataType type, std::size_t i) {
  if (type == CUDA_R_32F) return std::bit_cast<float>(storage[i]);
  return std::bit_cast<float>(static_cast<std::uint32_t>(reinterpret_cast<const std::uint16_t*>(storage.data())[i])
                              << 16);
}

void write(std::vector<std::uint32_t>& storage, cudaDataType type, std::size_t i, float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (type == CUDA_R_32F) {
    storage[i] = bits;
  } else {
    reinterpret_cast<std::uint16_t*>(storage.data())[i] = static_cast<std::uint16_t>(bits >> 16);
  }
}

/// A stored matrix with a leading dimension of 3 more than it needs.
struct Matrix {
  Matrix(cudaDataType of, std::int64_t row_count, std::int64_t column_count, cublasLtOrder_t in)
      : type(of),
        rows(row_count),
        columns(column_count),
        order(in),
        stride((in == CUBLASLT_ORDER_ROW ? column_count : row_count) + 3),
        storage(static_cast<std::size_t>(stride * std::max(row_count, column_count))) {
    EXPECT_EQ(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), stride),
              CUBLAS_STATUS_SUCCESS);
    const std::int32_t value = order;
    EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &value, sizeof(value)),
              CUBLAS_STATUS_SUCCESS);
  }
  ~Matrix() { cublasLtMatrixLayoutDestroy(layout); }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  std::size_t at(std::int64_t row, std::int64_t column) const {
    return static_cast<std::size_t>(order == CUBLASLT_ORDER_ROW ? row * stride + column : column * stride + row);
  }
  float get(std::int64_t row, std::int64_t column) const { return read(storage, type, at(row, column)); }
  void fill(int modulus) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        write(storage, type, at(i, j), static_cast<float>((i * 5 + j * 3) % modulus - modulus / 2));
      }
    }
  }

  cudaDataType type;
  std::int64_t rows, columns;
  cublasLtOrder_t order;
  std::int64_t stride;
  std::vector<std::uint32_t> storage;
  cublasLtMatrixLayout_t layout = nullptr;
};

class CublasLt : public testing::TestWithParam<MatmulCase> {};

TEST_P(CublasLt, ProductOfAnyOrder) {
  simt::set_unaligned_operands(simt::UnalignedOperands::allowed);  // every leading dimension is a case
  const MatmulCase& p = GetParam();
  const std::int64_t m = 7, n = 5, k = 11;
  Matrix a(p.operands, p.turn_a ? k : m, p.turn_a ? m : k, p.order);
  Matrix b(p.operands, p.turn_b ? n : k, p.turn_b ? k : n, p.order);
  Matrix d(p.output, m, n, p.order);
  a.fill(5);
  b.fill(3);
  d.fill(7);
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  ASSERT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
  const cublasOperation_t operation[2] = {p.turn_a ? CUBLAS_OP_T : CUBLAS_OP_N, p.turn_b ? CUBLAS_OP_T : CUBLAS_OP_N};
  cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &operation[0], sizeof(operation[0]));
  cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &operation[1], sizeof(operation[1]));
  ASSERT_EQ(cublasLtMatmulPreferenceCreate(&preference), CUBLAS_STATUS_SUCCESS);
  const std::uint32_t alignment = 4;
  for (auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                     CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    cublasLtMatmulPreferenceSetAttribute(preference, which, &alignment, sizeof(alignment));
  }
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  ASSERT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, product, a.layout, b.layout, d.layout, d.layout, preference, 1,
                                           &best, &found),
            CUBLAS_STATUS_SUCCESS);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  const float alpha = 2, beta = 3;
  std::vector<float> expected;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += (p.turn_a ? a.get(l, i) : a.get(i, l)) * (p.turn_b ? b.get(j, l) : b.get(l, j));
      expected.push_back(alpha * sum + beta * d.get(i, j));
    }
  }
  const auto run = [&](const void* left) {
    return cublasLtMatmul(handle, product, &alpha, left, a.layout, b.storage.data(), b.layout, &beta, d.storage.data(),
                          d.layout, d.storage.data(), d.layout, &best.algo, nullptr, 0, stream);
  };
  ASSERT_EQ(run(a.storage.data()), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(run(reinterpret_cast<const char*>(a.storage.data()) + 2), CUBLAS_STATUS_INVALID_VALUE) << "misaligned";
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j)
      EXPECT_EQ(d.get(i, j), expected[static_cast<std::size_t>(i * n + j)]) << i << " " << j;
  }
  cudaStreamDestroy(stream);
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatmulDescDestroy(product);
  cublasLtDestroy(handle);
  simt::set_unaligned_operands(simt::UnalignedOperands::refused);
}

/// What the heuristic says of an 16 x 16 x 16 product of bf16 whose A has this leading dimension and alignment.
cublasStatus_t heuristic(std::int64_t leading_dimension, std::uint32_t alignment, int& found) {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, square = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, 16, 16, leading_dimension);
  cublasLtMatrixLayoutCreate(&square, CUDA_R_16BF, 16, 16, 16);
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment,
                                       sizeof(alignment));
  cublasLtMatmulHeuristicResult_t best{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, product, a, square, square, square, preference, 1, &best, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(a);
  cublasLtMatrixLayoutDestroy(square);
  cublasLtMatmulDescDestroy(product);
  cublasLtDestroy(handle);
  return status;
}

TEST(CublasLtRules, RefuseOperandsWithUnalignedRows) {
  int found = 0;
  EXPECT_EQ(heuristic(16, 16, found), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(heuristic(24, 256, found), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(heuristic(17, 256, found), CUBLAS_STATUS_INVALID_VALUE) << "leading dimension";
  EXPECT_EQ(heuristic(16, 8, found), CUBLAS_STATUS_INVALID_VALUE) << "address";
  simt::set_unaligned_operands(simt::UnalignedOperands::no_algorithm);
  EXPECT_EQ(heuristic(17, 256, found), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(found, 0);
  simt::set_unaligned_operands(simt::UnalignedOperands::refused);
}

std::vector<MatmulCase> all_cases() {
  std::vector<MatmulCase> cases;
  for (int turns = 0; turns < 4; ++turns) {
    for (auto order : {CUBLASLT_ORDER_COL, CUBLASLT_ORDER_ROW}) {
      cases.push_back({turns % 2 == 1, turns / 2 == 1, order, CUDA_R_32F, CUDA_R_32F});
      cases.push_back({turns % 2 == 1, turns / 2 == 1, order, CUDA_R_16BF, CUDA_R_32F});
      cases.push_back({turns % 2 == 1, turns / 2 == 1, order, CUDA_R_16BF, CUDA_R_16BF});
    }
  }
  return cases;
}

std::string name_of(const testing::TestParamInfo<MatmulCase>& info) {
  const MatmulCase& p = info.param;
  return std::string(p.turn_a ? "t" : "n") + (p.turn_b ? "t" : "n") +
         (p.order == CUBLASLT_ORDER_ROW ? "_rows" : "_columns") + (p.operands == CUDA_R_16BF ? "_bf16" : "_f32") +
         (p.output == CUDA_R_16BF ? "_to_bf16" : "_to_f32");
}

INSTANTIATE_TEST_SUITE_P(, CublasLt, testing::ValuesIn(all_cases()), name_of);

}  // namespace
