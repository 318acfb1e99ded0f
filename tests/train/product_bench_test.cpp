// Nothing here asserts how long anything takes.
#include "train/tools/bench/product_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "train/tools/bench/timing_backend.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;

ProductBenchOptions tiny_products() {
  ProductBenchOptions options;
  options.rows = 6;
  options.width = 4;
  options.d_ff = 5;
  options.vocab_sizes = {11, 16};
  options.logit_rows = 3;
  options.seconds = 0;
  return options;
}

TEST(ProductBench, ReportsEveryProductOfTheModel) {
  const auto backend = make_cpu_backend(1);
  const ProductBenchResult result = run_product_bench(*backend, tiny_products());
  ASSERT_EQ(result.products.size(), 3u * 6u);
  const auto json = nlohmann::json::parse(to_json(result));
  EXPECT_EQ(json.at("dtype"), "f32");
  for (const auto& product : json.at("products")) {
    EXPECT_GT(product.at("share_of_peak").get<double>(), 0) << product;
    EXPECT_FALSE(product.contains("refused"));
  }
  const auto shape = [&](std::size_t i) {
    const auto& p = json.at("products")[i];
    return std::vector<std::int64_t>{p.at("m"), p.at("n"), p.at("k")};
  };
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(json.at("products")[0].at("part"), "forward");
  EXPECT_EQ(shape(0), (Shape{6, 12, 4}));  // qkv
  EXPECT_EQ(shape(7), (Shape{6, 4, 10}));  // gate, up: input gradient
  EXPECT_EQ(json.at("products")[14].at("layer"), "head, V = 11");
  EXPECT_EQ(json.at("products")[14].at("part"), "weight gradient");
  EXPECT_EQ(shape(14), (Shape{11, 4, 3}));
  EXPECT_EQ(shape(15), (Shape{3, 16, 4}));
  EXPECT_EQ(result.products[0].flops(), 2 * 6 * 12 * 4);
  EXPECT_THAT(to_text(result), HasSubstr("head, V = 16"));
}

/// As cuBLASLt may: no product whose result has rows of an odd length.
class RefusingBackend : public TimingBackend {
 public:
  using TimingBackend::TimingBackend;

 protected:
  void enqueue(const Op& op) override {
    const auto* const product = std::get_if<const Matmul*>(&op);
    if (product != nullptr && (*product)->c.extent(1) % 2 != 0) throw Error("no algorithm for odd rows");
    TimingBackend::enqueue(op);
  }
};

TEST(ProductBench, ARefusedProductIsALineWithItsReason) {
  const auto cpu = make_cpu_backend(1);
  RefusingBackend backend(*cpu);
  const ProductBenchResult result = run_product_bench(backend, tiny_products());
  ASSERT_EQ(result.products.size(), 3u * 6u);
  const auto json = nlohmann::json::parse(to_json(result));
  int refused = 0;
  for (const auto& product : json.at("products")) {
    if (product.at("n").get<int>() % 2 == 0) continue;
    ++refused;
    EXPECT_EQ(product.at("refused"), "no algorithm for odd rows") << product;
    EXPECT_FALSE(product.contains("seconds"));
  }
  EXPECT_EQ(refused, 3);  // down's two gradients that have F = 5 columns, and the logits of V = 11
  EXPECT_THAT(to_text(result), HasSubstr("refused: no algorithm for odd rows"));
}

TEST(ProductBench, RefusesSizesWithTheWayOut) {
  const auto backend = make_cpu_backend(1);
  ProductBenchOptions options = tiny_products();
  options.vocab_sizes = {16, 0};
  try {
    run_product_bench(*backend, options);
    FAIL() << "V = 0 was accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--vocab 0: choose 1 or more"));
  }
}

}  // namespace
}  // namespace vqlm
