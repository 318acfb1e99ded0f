#include "train/tools/bench/product_bench.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "dist/self_communicator.h"
#include "train/engine/bench_tensors.h"
#include "train/engine/matmul_peak.h"

namespace vqlm {
namespace {

void check(const ProductBenchOptions& o) {
  std::vector<std::pair<const char*, std::int64_t>> sizes = {
      {"rows", o.rows}, {"width", o.width}, {"d-ff", o.d_ff}, {"logit-rows", o.logit_rows}};
  for (const std::int64_t vocab_size : o.vocab_sizes) sizes.emplace_back("vocab", vocab_size);
  for (const auto& [option, value] : sizes) {
    if (value < 1) throw UsageError(fmt::format("bench products: --{} {}: choose 1 or more", option, value));
  }
}

/// y (rows, out) = x (rows, in) w^T with w (out, in), and its two gradients.
struct Layer {
  std::string name;
  std::int64_t rows, in, out;
};

std::vector<Layer> layers_of(const ProductBenchOptions& o) {
  std::vector<Layer> layers = {{"qkv", o.rows, o.width, 3 * o.width},
                               {"output", o.rows, o.width, o.width},
                               {"gate, up", o.rows, o.width, 2 * o.d_ff},
                               {"down", o.rows, o.d_ff, o.width}};
  for (const std::int64_t vocab_size : o.vocab_sizes) {
    layers.push_back({fmt::format("head, V = {}", vocab_size), o.logit_rows, o.width, vocab_size});
  }
  return layers;
}

class ProductBench {
 public:
  ProductBench(Backend& backend, const ProductBenchOptions& options, ProductBenchResult& result)
      : backend_(backend), o_(options), result_(result) {}

  void measure(const Layer& layer) {
    BenchTensors tensors(backend_);
    const DType type = backend_.activation_dtype();
    const Tensor x = tensors.normal({layer.rows, layer.in}, type);
    const Tensor w = tensors.normal({layer.out, layer.in}, type, 0.02f);
    const Tensor y = tensors.normal({layer.rows, layer.out}, type), dx = tensors.make(x.shape(), type);
    const Tensor dw = tensors.make({layer.out, layer.in}, DType::f32);
    backend_.fill(dw, 0.0f);
    // Gradients first: forward would overwrite y's normal numbers with larger ones.
    add({layer.name, "input gradient", layer.rows, layer.in, layer.out},
        [&] { backend_.run(Matmul{.c = dx, .a = y, .b = w, .accumulate = Accumulate::no}); });
    add({layer.name, "weight gradient", layer.out, layer.in, layer.rows},
        [&] { backend_.run(Matmul{.c = dw, .a = y, .b = x, .ta = Transpose::yes, .accumulate = Accumulate::yes}); });
    add({layer.name, "forward", layer.rows, layer.out, layer.in},
        [&] { backend_.run(Matmul{.c = y, .a = x, .b = w, .tb = Transpose::yes, .accumulate = Accumulate::no}); });
    std::rotate(result_.products.end() - 3, result_.products.end() - 1, result_.products.end());
  }

 private:
  template <class Work>
  void add(ProductRate product, const Work& work) {
    try {
      product.time = time_calls(backend_, work, o_.seconds, o_.laps);
    } catch (const Error& error) {
      product.refused = error.what();
    }
    result_.products.push_back(std::move(product));
  }

  Backend& backend_;
  const ProductBenchOptions& o_;
  ProductBenchResult& result_;
};

}  // namespace

ProductBenchResult run_product_bench(Backend& backend, const ProductBenchOptions& options) {
  check(options);
  SelfCommunicator self(backend, "bench");
  ProductBenchResult result;
  result.machine = backend.description();
  result.dtype = name_of(backend.activation_dtype());
  result.matmul_peak = measure_matmul_peak(backend, self).flops_per_second;
  ProductBench bench(backend, options, result);
  for (const Layer& layer : layers_of(options)) bench.measure(layer);
  result.matmul_peak = std::max(result.matmul_peak, measure_matmul_peak(backend, self).flops_per_second);
  return result;
}

std::string to_text(const ProductBenchResult& result) {
  std::string text = fmt::format(
      "machine {}; {}; square products peak at {:.1f} GFLOP/s\n\n"
      "  {:<18} {:<16} {:>8} {:>8} {:>8} {:>11} {:>10} {:>8}\n",
      result.machine, result.dtype, 1e-9 * result.matmul_peak, "layer", "product", "M", "N", "K", "us", "TFLOP/s",
      "of peak");
  for (const ProductRate& p : result.products) {
    text += fmt::format("  {:<18} {:<16} {:>8} {:>8} {:>8}", p.layer, p.part, p.m, p.n, p.k);
    if (!p.refused.empty()) {
      text += fmt::format("  refused: {}\n", p.refused);
      continue;
    }
    const double rate = p.flops() / p.time.seconds;
    text += fmt::format(" {:>11.2f} {:>10.3f} {:>6.1f} %\n", 1e6 * p.time.seconds, 1e-12 * rate,
                        100 * rate / result.matmul_peak);
  }
  return text;
}

std::string to_json(const ProductBenchResult& result) {
  nlohmann::ordered_json json;
  json["machine"] = result.machine;
  json["dtype"] = result.dtype;
  json["matmul_peak_flops"] = result.matmul_peak;
  json["products"] = nlohmann::ordered_json::array();
  for (const ProductRate& p : result.products) {
    nlohmann::ordered_json line = {{"layer", p.layer}, {"part", p.part}, {"m", p.m}, {"n", p.n}, {"k", p.k}};
    if (!p.refused.empty()) {
      line["refused"] = p.refused;
    } else {
      const double rate = p.flops() / p.time.seconds;
      line["seconds"] = p.time.seconds;
      line["seconds_min"] = p.time.seconds_min;
      line["flops_per_second"] = rate;
      line["share_of_peak"] = rate / result.matmul_peak;
    }
    json["products"].push_back(std::move(line));
  }
  return json.dump(2) + "\n";
}

}  // namespace vqlm
