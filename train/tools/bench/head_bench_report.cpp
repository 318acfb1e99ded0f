// What vqlm bench head prints and writes of one size.
#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "train/tools/bench/head_bench.h"

namespace vqlm {
namespace {

const char* name_of(TokenDistribution distribution) {
  return distribution == TokenDistribution::zipf ? "zipf" : "uniform";
}

nlohmann::ordered_json json_of(const HeadResult& head) {
  if (!head.training_skipped.empty()) return {{"skipped", head.training_skipped}};
  const HeadTiming& t = head.training;
  return {{"seconds", t.seconds},
          {"seconds_min", t.seconds_min},
          {"flops_per_second", t.flops_per_second},
          {"floor_seconds", t.floor_seconds},
          {"bytes", t.bytes},
          {"matrix_parameters", t.matrix_parameters},
          {"bias_parameters", t.bias_parameters},
          {"mean_nll", t.mean_nll}};
}

nlohmann::ordered_json decoding_of(const HeadResult& head) {
  if (!head.decoding_skipped.empty()) return {{"skipped", head.decoding_skipped}};
  nlohmann::ordered_json json;
  for (const DecodeTiming& t : head.decoding) {
    nlohmann::ordered_json& at = json[t.operation];
    at = {{"seconds", t.seconds},
          {"seconds_min", t.seconds_min},
          {"bytes", t.bytes},
          {"bytes_per_second", t.bytes_per_second()},
          {"floor_seconds", t.floor_seconds}};
    if (head.head != BenchedHead::dense && head.head != BenchedHead::low_rank)
      at["clusters_visited"] = t.clusters_visited;
  }
  return json;
}

std::string training_text(const HeadBenchResult& result) {
  std::string text = fmt::format("  {:<13} {:>10} {:>10} {:>10} {:>10} {:>10} {:>14} {:>10} {:>10}\n", "head", "ms",
                                 "fastest", "floor", "GFLOP/s", "MiB", "parameters", "biases", "nll");
  for (const HeadResult& head : result.heads) {
    if (!head.training_skipped.empty()) {
      text += fmt::format("  {:<13} skipped: {}\n", name_of(head.head), head.training_skipped);
      continue;
    }
    const HeadTiming& t = head.training;
    text +=
        fmt::format("  {:<13} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.1f} {:>10.1f} {:>14} {:>10} {:>10.4f}\n",
                    name_of(head.head), 1e3 * t.seconds, 1e3 * t.seconds_min, 1e3 * t.floor_seconds,
                    1e-9 * t.flops_per_second, t.bytes / (1 << 20), t.matrix_parameters, t.bias_parameters, t.mean_nll);
  }
  const HeadResult *const dense = result.find(BenchedHead::dense), *const vq = result.find(BenchedHead::vq);
  if (result.ratio_dense_over_vq() > 0) {
    text += fmt::format(
        "\ndense / vq: {:.1f} times the seconds, {:.1f} times the parameters\n", result.ratio_dense_over_vq(),
        static_cast<double>(dense->training.matrix_parameters) / static_cast<double>(vq->training.matrix_parameters));
  }
  return text;
}

std::string decoding_text(const HeadBenchResult& result) {
  const HeadBenchOptions& o = result.options;
  std::string text = fmt::format(
      "\none token at a time: {} tokens, {} rounds, k = {}, logits of standard deviation {}\n\n"
      "  {:<13} {:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>8}\n",
      o.decode_tokens, o.repeats, o.top_k, o.spread, "head", "operation", "us", "fastest", "floor", "MB", "GB/s",
      "clusters", "dense /");
  for (const HeadResult& head : result.heads) {
    if (!head.decoding_skipped.empty()) {
      text += fmt::format("  {:<13} skipped: {}\n", name_of(head.head), head.decoding_skipped);
    }
    for (const DecodeTiming& t : head.decoding) {
      const double ratio = head.head == BenchedHead::dense ? 0 : result.decode_ratio(t.operation, head.head);
      text += fmt::format("  {:<13} {:<10} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.2f} {:>10.1f} {:>9} {:>8}\n",
                          name_of(head.head), t.operation, 1e6 * t.seconds, 1e6 * t.seconds_min, 1e6 * t.floor_seconds,
                          1e-6 * t.bytes, 1e-9 * t.bytes_per_second(),
                          t.clusters_visited > 0 ? fmt::format("{:.1f}", t.clusters_visited) : "all",
                          ratio > 0 ? fmt::format("{:.1f}", ratio) : "");
    }
  }
  return text;
}

}  // namespace

const char* name_of(BenchedHead head) {
  switch (head) {
    case BenchedHead::dense_plain:
      return "dense_plain";
    case BenchedHead::dense:
      return "dense";
    case BenchedHead::low_rank:
      return "low_rank";
    case BenchedHead::vq:
      return "vq";
    case BenchedHead::vq_embedding:
      return "vq_embedding";
    case BenchedHead::vq_logits:
      return "vq_logits";
  }
  return "";
}

double HeadResult::decode_seconds(const std::string& operation) const {
  for (const DecodeTiming& timing : decoding) {
    if (timing.operation == operation) return timing.seconds;
  }
  return 0;
}

const HeadResult* HeadBenchResult::find(BenchedHead head) const {
  for (const HeadResult& result : heads) {
    if (result.head == head) return &result;
  }
  return nullptr;
}

double HeadBenchResult::ratio_dense_over_vq() const {
  const HeadResult *const dense = find(BenchedHead::dense), *const vq = find(BenchedHead::vq);
  if (dense == nullptr || vq == nullptr || vq->training.seconds == 0) return 0;
  return dense->training.seconds / vq->training.seconds;
}

double HeadBenchResult::decode_ratio(const std::string& operation, BenchedHead over) const {
  const HeadResult *const dense = find(BenchedHead::dense), *const other = find(over);
  if (dense == nullptr || other == nullptr || other->decode_seconds(operation) == 0) return 0;
  return dense->decode_seconds(operation) / other->decode_seconds(operation);
}

std::string to_text(const HeadBenchResult& result) {
  const HeadBenchOptions& o = result.options;
  std::string text = fmt::format(
      "forward and backward of {} rows of width {}, vocabulary {}, {} targets, r={}, K={} G={} Q={}, {} map\n"
      "machine {}; {}; {} time; medians of {} passes in turns; products peak at {:.1f} GFLOP/s, memory at "
      "{:.1f} "
      "GB/s\n\n",
      o.rows, o.width, o.vocab_size, name_of(o.targets), o.low_rank(), o.clusters, o.groups, o.codes, o.map,
      result.machine, result.dtype, o.clock == wall_seconds ? "wall" : "processor", o.repeats,
      1e-9 * result.matmul_peak, 1e-9 * result.memory_rate);
  text += training_text(result);
  return o.decode_tokens > 0 ? text + decoding_text(result) : text;
}

std::string to_json(const HeadBenchResult& result) {
  const HeadBenchOptions& o = result.options;
  nlohmann::ordered_json json;
  const auto number = [](double x) { return x > 0 ? nlohmann::ordered_json(x) : nlohmann::ordered_json(); };
  const auto seconds = [&](BenchedHead head) {
    const HeadResult* const found = result.find(head);
    return number(found == nullptr ? 0 : found->training.seconds);
  };
  json["ratio_dense_over_vq"] = number(result.ratio_dense_over_vq());
  json["seconds_dense"] = seconds(BenchedHead::dense);
  json["seconds_vq"] = seconds(BenchedHead::vq);
  for (const HeadResult& head : result.heads) json[name_of(head.head)] = json_of(head);
  if (o.decode_tokens > 0) {
    nlohmann::ordered_json& decoding = json["decoding"];
    decoding = {{"tokens", o.decode_tokens}, {"spread", o.spread}, {"top_k", o.top_k}};
    for (const char* const operation : {"log_probs", "arg_max", "top_k", "sample"}) {
      decoding["ratios_dense_over_vq"][operation] = number(result.decode_ratio(operation));
    }
    for (const HeadResult& head : result.heads) {
      if (head.head != BenchedHead::dense_plain) decoding[name_of(head.head)] = decoding_of(head);
    }
  }
  json["machine"] = result.machine;
  json["dtype"] = result.dtype;
  json["clock"] = o.clock == wall_seconds ? "wall" : "cpu";
  json["matmul_peak_flops"] = result.matmul_peak;
  json["memory_bytes_per_second"] = result.memory_rate;
  json["vocab_size"] = o.vocab_size;
  json["width"] = o.width;
  json["rows"] = o.rows;
  json["rank"] = o.low_rank();
  json["clusters"] = o.clusters;
  json["groups"] = o.groups;
  json["codes"] = o.codes;
  json["targets"] = name_of(o.targets);
  json["map"] = o.map;
  return json.dump(2) + "\n";
}

}  // namespace vqlm
