// What `vqlm plan` and its --search share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "train/config/config.h"
#include "train/tools/plan/gpu_kinds.h"

namespace vqlm {

struct PlanArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string grid;
  std::string device_memory;
  std::string reserve;
  std::int64_t vocabulary = 0;
  std::string dtype;  // empty: by train.precision
  // Rates; 0: of --gpu, or an H200's.
  double peak_tflops = 0;
  double memory_gbs = 0;
  double network_gbs = 0;
  double tensor_gbs = 0;  // without --gpu 0: as the network
  std::string measured;   // file of vqlm bench collectives
  std::string gpu;
  int gpus_per_node = Cluster{}.gpus_per_node;
  double product_efficiency = Attainment{}.products;
  double memory_efficiency = Attainment{}.memory;
  double link_efficiency = Attainment{}.links;
  double op_us = 1e6 * Attainment{}.op_seconds;
  double collective_us = 1e6 * Attainment{}.collective_seconds;
  bool search = false;
  int gpus = 0;
  std::size_t top = 10;
  std::string json;
};

/// Of a device: what it has, and what is kept for what no back end accounts for.
struct DeviceMemory {
  std::optional<std::size_t> total;
  std::size_t reserve = 0;
};
/// As --device-memory, --reserve and --gpu say.
DeviceMemory device_memory_of(const PlanArguments& options);

/// The cluster of --gpu, with the rates that other options state in place of the data sheet's.
Cluster cluster_of(const PlanArguments& options);

/// Sets config.model.vocab_size to `asked`, or for 0 to what the configuration or its shards say; `notes` say where it comes from.
/// Throws UsageError of `command` where nobody says it.
std::int64_t known_vocabulary(const char* command, std::int64_t asked, Config& config, std::vector<std::string>& notes);
/// The same for a plan's --vocab.
std::int64_t vocabulary_of(const PlanArguments& options, Config& config, std::vector<std::string>& notes);

/// The map that head.map names; else none: balanced clusters are assumed, as the notes say then. config must be resolved.
std::optional<CodeMap> map_of(const Config& config, std::vector<std::string>& notes);

/// vqlm plan --search.
void search_plan(const PlanArguments& options);

}  // namespace vqlm
