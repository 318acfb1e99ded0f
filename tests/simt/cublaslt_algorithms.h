// The algorithms that the stand-in for cuBLASLt has. All compute the same product; they differ in their configuration, in how
// long they take (by the executor's clock of products), in what they ask for, and two of them in what a program must beware of.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <vector>

#include "tests/simt/cublaslt_product.h"

namespace simt {

Operations& of(cublasLtMatmulDesc_t handle);
Layout& of(cublasLtMatrixLayout_t handle);

/// What an algorithm remembers, inside cublasLtMatmulAlgo_t.
struct Algorithm {
  std::int32_t id = 0;
  std::uint32_t tile = 0, stages = 0;
  std::int32_t split_k = 1;
  std::uint32_t reduction_scheme = 0, swizzle = 0, custom_option = 0;
  std::uint16_t inner_shape = 0, cluster_shape = 0;
  std::uint32_t workspace_bytes = 0;
  std::uint8_t alignment_bits[4] = {0, 0, 0, 0};  // A, B, C, D: the preference's promise, as powers of two
  std::uint8_t proposed = 0;                      // by the heuristic, not made by its id
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

Algorithm algorithm_of(const cublasLtMatmulAlgo_t& algo);
void write(cublasLtMatmulAlgo_t& algo, const Algorithm& algorithm);

/// The heuristic's list, best first by its own estimate, which is wrong: it leads with the slowest.
std::vector<Algorithm> algorithms_for(const Product& call, std::uint64_t workspace_bytes,
                                      std::uint32_t reduction_schemes);

/// What the algorithm takes for this product by the executor's clock, in nanoseconds.
std::int64_t nanoseconds_of(const Algorithm& algorithm, const Product& call);
/// Whether results of the algorithm differ from call to call.
bool is_unsteady(const Algorithm& algorithm);
/// Counts one product that was made by the algorithm; its number, from 1.
std::int64_t count_product(const Algorithm& algorithm);
/// Appends what was counted to the file that SIMT_PRODUCTS_LOG names, one line "ID COUNT" an algorithm.
void log_products();

}  // namespace simt
