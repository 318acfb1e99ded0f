// What a step's benchmark says: for people and for programs.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "train/config/enum_words.h"
#include "train/tools/bench/step_bench.h"

namespace vqlm {
namespace {

// In the order of MemoryUse.
constexpr std::array<const char*, memory_use_count> memory_names = {"parameters", "gradients", "optimizer",
                                                                    "activations", "workspace"};

double mib(double bytes) {
  return bytes / (1 << 20);
}

std::string op_line(std::string_view name, std::int64_t calls, double seconds, double step, double flops) {
  std::string line =
      fmt::format("  {:<24} {:>6} {:>10.2f} {:>7.1f} %", name, calls, 1e3 * seconds, 100 * seconds / step);
  if (flops > 0) line += fmt::format(" {:>9.1f}", 1e-9 * flops / seconds);
  return line + "\n";
}

std::string profile_text(const StepBenchResult& result) {
  std::string text = fmt::format("\n  {:<24} {:>6} {:>10} {:>9} {:>9}\n", "op", "calls", "ms/step", "share", "GFLOP/s");
  double rest = result.profiled_seconds;
  for (const OpTime& op : result.ops) {
    text += op_line(op.name, op.calls, op.seconds, result.profiled_seconds, op.flops);
    rest -= op.seconds;
  }
  // Collectives do not pass through the back end.
  return text + op_line("collectives and host", 1, std::max(rest, 0.0), result.profiled_seconds, 0);
}

std::string memory_text(const StepBenchResult& result) {
  std::string text = fmt::format("\nmemory  {:.1f} MiB of this rank at the peak (whole process: {:.1f} MiB)\n",
                                 mib(static_cast<double>(result.memory.peak_total)), mib(result.resident_bytes));
  for (std::size_t use = 0; use < memory_names.size(); ++use) {
    text += fmt::format("  {:<12} {:>9.1f} MiB  {}\n", memory_names[use],
                        mib(static_cast<double>(result.memory.peak[use])), result.memory_notes[use]);
  }
  return text;
}

nlohmann::ordered_json shape_json(const StepShape& shape) {
  const ModelConfig& m = shape.model;
  nlohmann::ordered_json json = {{"vocab_size", m.vocab_size},
                                 {"d_model", m.d_model},
                                 {"n_layers", m.n_layers},
                                 {"n_heads", m.n_heads},
                                 {"n_kv_heads", m.n_kv_heads},
                                 {"d_ff", m.d_ff},
                                 {"rope_theta", m.rope_theta},
                                 {"norm_eps", m.norm_eps},
                                 {"tie_embeddings", m.tie_embeddings},
                                 {"head", word_of(kind_of(shape.head))},
                                 {"bias", has_bias(shape.head)},
                                 {"seq_len", shape.seq_len},
                                 {"micro_batch", shape.micro_batch},
                                 {"micro_batches", shape.micro_batches}};
  if (const LowRankHeadConfig* const low_rank = low_rank_of(shape.head)) json["rank"] = low_rank->rank;
  if (const AdaptiveHeadConfig* const adaptive = adaptive_of(shape.head)) {
    json["cutoffs"] = adaptive->cutoffs;
    json["tail_ratio"] = adaptive->tail_ratio;
  }
  if (const VqHeadConfig* const vq = vq_of(shape.head)) {
    json["clusters"] = vq->clusters;
    json["members"] = word_of(static_cast<MemberVectors>(vq->members.index()));
    json["groups"] = vq->groups();
    json["codes"] = vq->codes();
    json["member_mean"] = vq->member_mean();
    json["input_codes"] = vq->input_codes;
  }
  return json;
}

}  // namespace

std::string to_text(const StepBenchResult& result) {
  const double fastest = *std::min_element(result.seconds.begin(), result.seconds.end());
  std::string text = fmt::format("model   {}: {:.2f} M parameters\n", result.model, 1e-6 * result.parameters);
  const std::string clock = result.clock == "wall"  ? "wall clock"
                            : result.clock == "cpu" ? "all times are processor time"
                                                    : "the device's clock";
  text += fmt::format("machine {}; {}; {}{}\n", result.machine, result.dtype, clock,
                      result.clock == "device" ? fmt::format("; graphs {}, overlap {}", result.graphs ? "on" : "off",
                                                             result.overlap ? "on" : "off")
                                               : "");
  if (!result.products.empty()) text += result.products + "\n";
  text += fmt::format(
      "step    {:.0f} tokens: {:.2f} ms median, {:.2f} ms fastest of {}; {:.0f} tokens/s; {:.2f} ms in the "
      "head; last loss {:.4f}\n",
      result.tokens, 1e3 * result.seconds_per_step(), 1e3 * fastest, result.seconds.size(), result.tokens_per_second(),
      1e3 * result.seconds_head, result.mean_nll);
  text += fmt::format("peak    {:.1f} GFLOP/s before, {:.1f} after ({} products of {}^3, {} of 0.5 s)\n",
                      1e-9 * result.matmul_peak_before, 1e-9 * result.matmul_peak_after, result.dtype,
                      result.matmul_size, result.clock == "cpu" ? "mean" : "best window");
  text += fmt::format(
      "mfu     {:.1f} % median, {:.1f} % fastest ({:.1f} MFLOP a token); processor time is {:.0f} % of the "
      "steps' time\n",
      100 * result.mfu(), 100 * result.mfu() * result.seconds_per_step() / fastest, 1e-6 * result.flops_per_token,
      100 * result.cpu_share);
  if (!result.ops.empty()) text += profile_text(result);
  return text + memory_text(result);
}

std::string to_json(const StepBenchResult& result) {
  nlohmann::ordered_json json;
  json["model"] = result.model;
  json["machine"] = result.machine;
  json["dtype"] = result.dtype;
  json["clock"] = result.clock;
  json["graphs"] = result.graphs;
  json["overlap"] = result.overlap;
  if (!result.products.empty()) json["products"] = result.products;
  json["shape"] = shape_json(result.shape);
  json["parameters"] = result.parameters;
  json["tokens_per_step"] = result.tokens;
  json["flops_per_token"] = result.flops_per_token;
  json["seconds_per_step"] = result.seconds_per_step();
  json["seconds_per_step_min"] = *std::min_element(result.seconds.begin(), result.seconds.end());
  json["tokens_per_second"] = result.tokens_per_second();
  json["seconds_head"] = result.seconds_head;
  json["matmul_peak_flops"] = std::max(result.matmul_peak_before, result.matmul_peak_after);
  json["mfu"] = result.mfu();
  json["mean_nll"] = result.mean_nll;
  json["cpu_share"] = result.cpu_share;
  json["ops"] = nlohmann::ordered_json::array();
  for (const OpTime& op : result.ops) {
    nlohmann::ordered_json entry = {{"name", op.name},
                                    {"calls", op.calls},
                                    {"seconds", op.seconds},
                                    {"share", op.seconds / result.profiled_seconds}};
    if (op.flops > 0) entry["flops_per_second"] = op.flops / op.seconds;
    json["ops"].push_back(entry);
  }
  nlohmann::ordered_json& memory = json["memory_bytes"];
  for (std::size_t use = 0; use < memory_names.size(); ++use) {
    memory[memory_names[use]] = result.memory.peak[use];
  }
  memory["peak_total"] = result.memory.peak_total;
  memory["process_resident"] = result.resident_bytes;
  return json.dump(2) + "\n";
}

}  // namespace vqlm
