#include "train/tools/bench/attention_bench.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "dist/self_communicator.h"
#include "train/engine/bench_tensors.h"
#include "train/engine/matmul_peak.h"

namespace vqlm {
namespace {

void check(const AttentionBenchOptions& options) {
  for (const std::int64_t seq_len : options.seq_lens) {
    if (seq_len < 1) throw UsageError(fmt::format("bench attention: --seq-len {}: choose 1 or more", seq_len));
  }
  for (const auto& [option, value] : {std::pair{"width", options.width}, std::pair{"sharing", options.sharing},
                                      std::pair{"tokens", options.tokens}}) {
    if (value < 1) throw UsageError(fmt::format("bench attention: --{} {}: choose 1 or more", option, value));
  }
  for (const std::int64_t head_dim : options.head_dims) {
    if (head_dim < 2 || head_dim % 2 != 0 || options.width % head_dim != 0) {
      throw UsageError(fmt::format("bench attention: --head-dim {} for --width {}: choose an even divisor of the width",
                                   head_dim, options.width));
    }
    if (const std::int64_t heads = options.width / head_dim; heads % options.sharing != 0) {
      throw UsageError(
          fmt::format("bench attention: --sharing {} does not divide the {} heads of --width {} / --head-dim {}; "
                      "choose a divisor of {}",
                      options.sharing, heads, options.width, head_dim, heads));
    }
  }
}

AttentionTiming time_shape(Backend& backend, const AttentionBenchOptions& options, const AttentionShape& s) {
  BenchTensors tensors(backend);
  const DType type = backend.activation_dtype();
  const Shape outside = {s.batch, s.seq_len, std::int64_t{s.heads} * s.head_dim};
  const Tensor qkv = tensors.normal({s.batch, s.seq_len, s.row()}, type);
  const Tensor dqkv = tensors.make({s.batch, s.seq_len, s.row()}, type);
  const Tensor out = tensors.make(outside, type), dout = tensors.normal(outside, type);
  const Tensor lse = tensors.make({s.batch, s.heads, s.seq_len}, DType::f32);
  AttentionTiming timing{s, {}, {}};
  timing.forward = time_calls(
      backend, [&] { backend.run(AttentionForward{.out = out, .lse = lse, .qkv = qkv, .shape = s}); }, options.seconds,
      options.laps);
  timing.backward = time_calls(
      backend,
      [&] {
        backend.run(AttentionBackward{.dqkv = dqkv, .dout = dout, .out = out, .lse = lse, .qkv = qkv, .shape = s});
      },
      options.seconds, options.laps);
  backend.synchronize();
  return timing;
}

nlohmann::ordered_json json_of(const CallTime& time, double flops, double peak) {
  const double rate = flops / time.seconds;
  return {{"seconds", time.seconds},
          {"seconds_min", time.seconds_min},
          {"flops_per_second", rate},
          {"share_of_peak", rate / peak}};
}

}  // namespace

double AttentionTiming::forward_flops() const {
  return 2.0 * static_cast<double>(shape.batch * shape.seq_len * shape.seq_len) * shape.heads * shape.head_dim;
}

AttentionBenchResult run_attention_bench(Backend& backend, const AttentionBenchOptions& options) {
  check(options);
  SelfCommunicator self(backend, "bench");
  AttentionBenchResult result;
  result.machine = backend.description();
  result.dtype = name_of(backend.activation_dtype());
  result.matmul_peak = measure_matmul_peak(backend, self).flops_per_second;
  for (const std::int64_t head_dim : options.head_dims) {
    for (const std::int64_t seq_len : options.seq_lens) {
      const std::int64_t heads = options.width / head_dim;
      const AttentionShape shape{std::max<std::int64_t>(1, options.tokens / seq_len), seq_len, static_cast<int>(heads),
                                 static_cast<int>(heads / options.sharing), static_cast<int>(head_dim)};
      result.timings.push_back(time_shape(backend, options, shape));
    }
  }
  result.matmul_peak = std::max(result.matmul_peak, measure_matmul_peak(backend, self).flops_per_second);
  return result;
}

std::string to_text(const AttentionBenchResult& result) {
  std::string text = fmt::format(
      "causal attention; operations: 2 products of T^2 / 2 scores a head forward, 5 backward\n"
      "machine {}; {}; products peak at {:.1f} GFLOP/s\n\n"
      "  {:>6} {:>6} {:>6} {:>8} {:>8}  {:>10} {:>10} {:>7}  {:>10} {:>10} {:>7}\n",
      result.machine, result.dtype, 1e-9 * result.matmul_peak, "batch", "T", "heads", "kv heads", "head_dim",
      "forward ms", "TFLOP/s", "peak", "backwrd ms", "TFLOP/s", "peak");
  for (const AttentionTiming& t : result.timings) {
    text += fmt::format("  {:>6} {:>6} {:>6} {:>8} {:>8}", t.shape.batch, t.shape.seq_len, t.shape.heads,
                        t.shape.kv_heads, t.shape.head_dim);
    for (const auto& [time, flops] :
         {std::pair{t.forward, t.forward_flops()}, std::pair{t.backward, t.backward_flops()}}) {
      const double rate = flops / time.seconds;
      text += fmt::format("  {:>10.3f} {:>10.3f} {:>5.1f} %", 1e3 * time.seconds, 1e-12 * rate,
                          100 * rate / result.matmul_peak);
    }
    text += "\n";
  }
  return text;
}

std::string to_json(const AttentionBenchResult& result) {
  nlohmann::ordered_json json;
  json["machine"] = result.machine;
  json["dtype"] = result.dtype;
  json["matmul_peak_flops"] = result.matmul_peak;
  json["shapes"] = nlohmann::ordered_json::array();
  for (const AttentionTiming& t : result.timings) {
    json["shapes"].push_back({{"batch", t.shape.batch},
                              {"seq_len", t.shape.seq_len},
                              {"heads", t.shape.heads},
                              {"kv_heads", t.shape.kv_heads},
                              {"head_dim", t.shape.head_dim},
                              {"forward", json_of(t.forward, t.forward_flops(), result.matmul_peak)},
                              {"backward", json_of(t.backward, t.backward_flops(), result.matmul_peak)}});
  }
  return json.dump(2) + "\n";
}

}  // namespace vqlm
