// The matrix products of a training step, one by one, at the shapes of a model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "train/engine/lap_timer.h"

namespace vqlm {

struct ProductBenchOptions {
  std::int64_t rows = 4096;                        // N, of the blocks' products
  std::int64_t width = 768;                        // d
  std::int64_t d_ff = 2048;                        // F
  std::vector<std::int64_t> vocab_sizes = {8192};  // V of a dense head, each measured
  std::int64_t logit_rows = 1024;                  // rows of the head's products: a chunk of its logits
  double seconds = 0.2;                            // of timed calls of each product
  int laps = 5;                                    // that they are measured in
};

/// One product c (M, N) = op(a) (M, K) op(b) (K, N) of a layer with weights (out, in).
struct ProductRate {
  std::string layer;  // "qkv", "output", "gate, up", "down", "head, V = 50257"
  std::string part;   // "forward", "input gradient", "weight gradient" (f32, accumulating)
  std::int64_t m = 0, n = 0, k = 0;
  CallTime time = {};
  std::string refused = {};  // the back end's words, where it does not multiply these

  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

struct ProductBenchResult {
  std::string machine;
  std::string dtype;
  double matmul_peak = 0;  // FLOP/s, the higher one of before and after the products
  std::vector<ProductRate> products;
};

/// A product that the back end refuses is a line of the result, not the end. Throws UsageError for sizes below 1.
ProductBenchResult run_product_bench(Backend& backend, const ProductBenchOptions& options);

std::string to_text(const ProductBenchResult& result);
/// Keys: machine, dtype, matmul_peak_flops, products: layer, part, m, n, k, and seconds, seconds_min, flops_per_second,
/// share_of_peak, or refused.
std::string to_json(const ProductBenchResult& result);

}  // namespace vqlm
