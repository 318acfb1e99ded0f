#include "train/tools/plan/search_report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "train/config/enum_words.h"
#include "train/config/model_text.h"
#include "train/engine/human_bytes.h"

namespace vqlm {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string bytes_text(std::size_t bytes) {
  return human_bytes(static_cast<double>(bytes));
}

std::size_t count_refused(const SearchResult& result) {
  return std::accumulate(
      result.refused.begin(), result.refused.end(), std::size_t{0},
      [](std::size_t sum, const auto& entry) { return sum + static_cast<std::size_t>(entry.second); });
}

std::string bound_text(const PlannedChoice& choice) {
  return fmt::format("{}{}", name_of(choice.bound()), choice.limited_by_memory ? ", memory limit" : "");
}

std::string heading_text(const SearchReport& report) {
  const SearchResult& result = report.result;
  std::string text = fmt::format("model   {}: {:.2f} M parameters, {:.0f} tokens a step\n", model_text(report.config),
                                 1e-6 * result.parameters, result.tokens);
  text += fmt::format("gpus    {} x {}\n", report.search.gpus, cluster_text(report.search.cluster));
  text += fmt::format("rates   {}\n", rates_text(report.search.cluster));
  text +=
      fmt::format("memory  {} a rank: {} of the device, less {} for driver, libraries and kernels\n",
                  bytes_text(report.search.available), bytes_text(report.device_memory), bytes_text(report.reserve));
  text += fmt::format("choices {}: {} fit, {} do not, {} are refused\n", result.choices(), result.fitting.size(),
                      result.too_large.size(), count_refused(result));
  for (const auto& [reason, count] : result.refused) text += fmt::format("refused {:>4} x {}\n", count, reason);
  for (const std::string& note : report.notes) text += fmt::format("note    {}\n", note);
  return text;
}

std::string table_text(const SearchReport& report) {
  const std::vector<PlannedChoice>& fitting = report.result.fitting;
  const std::size_t lines = std::min(report.top, fitting.size());
  std::string text =
      fmt::format("\n{:>4} {:>13} {:>11} {:>9} {:>12} {:>12} {:>12} {:>7}  {}\n", "rank", "data x tensor",
                  "micro_batch", "recompute", "memory/rank", "step", "tokens/s", "MFU", "what binds");
  for (std::size_t i = 0; i < lines; ++i) {
    const PlannedChoice& c = fitting[i];
    text += fmt::format("{:>4} {:>13} {:>11} {:>9} {:>12} {:>9.2f} ms {:>12.0f} {:>5.1f} %  {}\n", i + 1,
                        fmt::format("{}x{}", c.data, c.tensor), c.micro_batch, word_of(c.recompute),
                        bytes_text(c.memory.total()), 1e3 * c.seconds, c.tokens_per_second, 100 * c.mfu, bound_text(c));
  }
  if (lines < fitting.size()) text += fmt::format("     ({} more: --top, or --json)\n", fitting.size() - lines);
  return text;
}

std::string conclusion_text(const SearchReport& report) {
  const PlannedChoice& best = report.result.fitting.front();
  const auto share = [&](double seconds) { return 100 * seconds / best.seconds; };
  std::string text = fmt::format(
      "\nbest    {}: {:.1f} % of its step compute, {:.1f} % memory bandwidth, {:.1f} % communication that nothing runs "
      "beside, {:.1f} % launches\n",
      choice_text(best), share(best.product_seconds), share(best.memory_seconds), share(best.waiting_seconds),
      share(best.launch_seconds));
  if (const PlannedChoice* const faster = report.result.faster_without_limit()) {
    text += fmt::format("memory  binds: {} would take {:.2f} ms ({:.1f} % less) and needs {} a rank\n",
                        choice_text(*faster), 1e3 * faster->seconds, 100 - share(faster->seconds),
                        bytes_text(faster->memory.total()));
  } else {
    text += "memory  does not bind: nothing that needs more is faster\n";
  }
  return text;
}

OrderedJson choice_json(const PlannedChoice& choice) {
  OrderedJson json = {{"data", choice.data},
                      {"tensor", choice.tensor},
                      {"micro_batch", choice.micro_batch},
                      {"recompute", word_of(choice.recompute)},
                      {"bytes_per_rank", choice.memory.total()},
                      {"predicted_seconds", choice.seconds},
                      {"tokens_per_second", choice.tokens_per_second},
                      {"mfu", choice.mfu},
                      {"binds", name_of(choice.bound())}};
  if (choice.fits) json["limited_by_memory"] = choice.limited_by_memory;
  json["seconds"] = {{"compute", choice.product_seconds},
                     {"memory_bandwidth", choice.memory_seconds},
                     {"communication", choice.waiting_seconds},
                     {"launches", choice.launch_seconds}};
  return json;
}

}  // namespace

std::string cluster_text(const Cluster& cluster) {
  return fmt::format("{} ({}), {} a node", cluster.gpu.name, cluster.gpu.description, cluster.gpus_per_node);
}

std::string rates_text(const Cluster& cluster) {
  const GpuKind& gpu = cluster.gpu;
  const Attainment& part = cluster.attainment;
  return fmt::format(
      "predicted, not measured: {:.4g} % of {:.4g} TFLOP/s, {:.4g} % of {:.4g} GB/s of memory, {:.4g} % of links of {:.4g} "
      "GB/s in a node and of a network of {:.4g} GB/s a GPU; {:.3g} us an op, {:.3g} us a collective",
      100 * part.products, 1e-12 * gpu.product_flops, 100 * part.memory, 1e-9 * gpu.memory_rate, 100 * part.links,
      1e-9 * gpu.link_rate, 1e-9 * gpu.network_rate, 1e6 * part.op_seconds, 1e6 * part.collective_seconds);
}

std::string SearchReport::nothing_fits() const {
  if (!result.fitting.empty()) return {};
  if (result.too_large.empty()) {
    return fmt::format("plan --search: the configuration is refused on every grid of {} GPUs; the first reason: {}",
                       search.gpus, result.refused.begin()->first);
  }
  const PlannedChoice& nearest = result.too_large.front();
  return fmt::format(
      "nothing fits: of {} choices on {} x {} the nearest, {}, needs {} a rank, and {} are left for it: take more --gpus, "
      "a --gpu with more memory, or a shorter data.seq_len",
      result.too_large.size(), search.gpus, search.cluster.gpu.name, choice_text(nearest),
      bytes_text(nearest.memory.total()), bytes_text(search.available));
}

std::string to_text(const SearchReport& report) {
  const std::string heading = heading_text(report);
  return report.result.fitting.empty() ? heading : heading + table_text(report) + conclusion_text(report);
}

std::string to_json(const SearchReport& report) {
  const SearchResult& result = report.result;
  const Cluster& cluster = report.search.cluster;
  OrderedJson json;
  json["model"] = {{"parameters", result.parameters}, {"vocab_size", report.config.model.vocab_size}};
  json["tokens_per_step"] = result.tokens;
  json["gpus"] = report.search.gpus;
  json["gpus_per_node"] = cluster.gpus_per_node;
  json["gpu"] = {{"name", cluster.gpu.name},
                 {"description", cluster.gpu.description},
                 {"product_flops", cluster.gpu.product_flops},
                 {"memory_rate", cluster.gpu.memory_rate},
                 {"link_rate", cluster.gpu.link_rate},
                 {"network_rate", cluster.gpu.network_rate}};
  json["assumptions"] = {{"source", "predicted, not measured"},
                         {"product_efficiency", cluster.attainment.products},
                         {"memory_efficiency", cluster.attainment.memory},
                         {"link_efficiency", cluster.attainment.links},
                         {"op_seconds", cluster.attainment.op_seconds},
                         {"collective_seconds", cluster.attainment.collective_seconds}};
  json["notes"] = report.notes;
  json["device_memory_bytes"] = report.device_memory;
  json["reserve_bytes"] = report.reserve;
  json["available_bytes"] = report.search.available;
  json["choices"] = {{"all", result.choices()},
                     {"fitting", result.fitting.size()},
                     {"too_large", result.too_large.size()},
                     {"refused", count_refused(result)}};
  json["refused"] = OrderedJson::array();
  for (const auto& [reason, count] : result.refused)
    json["refused"].push_back({{"reason", reason}, {"choices", count}});
  json["ranked"] = OrderedJson::array();
  for (const PlannedChoice& choice : result.fitting) json["ranked"].push_back(choice_json(choice));
  json["too_large"] = OrderedJson::array();
  for (const PlannedChoice& choice : result.too_large) json["too_large"].push_back(choice_json(choice));
  return json.dump(2) + "\n";
}

}  // namespace vqlm
