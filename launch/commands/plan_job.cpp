#include "launch/commands/plan_job.h"

#include <spdlog/fmt/fmt.h>

#include <filesystem>

#include "core/error.h"
#include "train/codes/code_map_file.h"
#include "train/run/training_inputs.h"
#include "train/tools/plan/plan_report.h"

namespace vqlm {

DeviceMemory device_memory_of(const PlanArguments& options) {
  DeviceMemory memory;
  if (!options.device_memory.empty()) {
    memory.total = parse_bytes(options.device_memory, "--device-memory");
  } else if (!options.gpu.empty()) {
    memory.total = static_cast<std::size_t>(gpu_kind(options.gpu).memory_bytes);
  }
  if (memory.total) memory.reserve = unaccounted_bytes(*memory.total);
  if (!options.reserve.empty()) memory.reserve = options.reserve == "0" ? 0 : parse_bytes(options.reserve, "--reserve");
  return memory;
}

Cluster cluster_of(const PlanArguments& options) {
  Cluster cluster;
  cluster.gpu = gpu_kind(options.gpu);
  cluster.gpus_per_node = options.gpus_per_node;
  cluster.attainment = {.products = options.product_efficiency,
                        .memory = options.memory_efficiency,
                        .links = options.link_efficiency,
                        .op_seconds = 1e-6 * options.op_us,
                        .collective_seconds = 1e-6 * options.collective_us};
  GpuKind& gpu = cluster.gpu;
  if (options.peak_tflops > 0) gpu.product_flops = 1e12 * options.peak_tflops;
  if (options.memory_gbs > 0) gpu.memory_rate = 1e9 * options.memory_gbs;
  if (options.network_gbs > 0) gpu.network_rate = 1e9 * options.network_gbs;
  if (options.tensor_gbs > 0) gpu.link_rate = 1e9 * options.tensor_gbs;
  return cluster;
}

std::int64_t vocabulary_of(const PlanArguments& options, Config& config, std::vector<std::string>& notes) {
  return known_vocabulary("plan", options.vocabulary, config, notes);
}

std::int64_t known_vocabulary(const char* command, std::int64_t asked, Config& config,
                              std::vector<std::string>& notes) {
  if (asked > 0) {
    config.model.vocab_size = asked;
    return asked;
  }
  if (config.model.vocab_size > 0) return config.model.vocab_size;
  try {
    const ShardSet shards = open_training_shards(config);
    notes.push_back(fmt::format("vocabulary of {} tokens from {}", shards.vocab_size(), shards.glob()));
    return shards.vocab_size();
  } catch (const Error& error) {
    throw UsageError(fmt::format("{}: the vocabulary is not known: give --vocab N, or set model.vocab_size ({})",
                                 command, error.what()));
  }
}

std::optional<CodeMap> map_of(const Config& config, std::vector<std::string>& notes) {
  const VqHeadConfig* const head = vq_of(config.head);
  if (head == nullptr) return std::nullopt;
  if (std::filesystem::is_regular_file(head->map)) {
    std::optional<CodeMap> map = load_code_map(head->map);
    check_map(*map, config, head->map);
    return map;
  }
  notes.push_back(
      fmt::format("head.map = \"{}\" is not made or read here: clusters of equal sizes are assumed, "
                  "{:.1f} tokens each",
                  head->map, static_cast<double>(config.model.vocab_size) / static_cast<double>(head->clusters)));
  return std::nullopt;
}

}  // namespace vqlm
