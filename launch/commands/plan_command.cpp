// vqlm plan: what a configuration needs and does on a process grid, computed without hardware and without data.
#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/codes/code_map_file.h"
#include "train/config/config_body_check.h"
#include "train/engine/human_bytes.h"
#include "train/run/training_inputs.h"
#include "train/tools/plan/plan_report.h"

namespace vqlm {
namespace {

// An H200's products, measured on such cards in bf16; its data sheet's fp32 without tensor cores.
constexpr double default_tflops_bf16 = 790;
constexpr double default_tflops_fp32 = 67;

struct PlanArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string grid;
  std::string device_memory;
  std::string reserve;
  std::int64_t vocabulary = 0;
  std::string dtype;       // empty: by train.precision
  double peak_tflops = 0;  // 0: by dtype
  double memory_gbs = 4300;
  double network_gbs = 50;
  double tensor_gbs = 0;  // 0: as the network
  std::string json;
};

double positive(const char* option, double value) {
  if (std::isfinite(value) && value > 0) return value;
  throw UsageError(fmt::format("plan: {} {}: a rate is a number above 0", option, value));
}

DType dtype_of(const PlanArguments& options, const Config& config) {
  if (options.dtype.empty()) return config.train.precision == Precision::fp32 ? DType::f32 : DType::bf16;
  return options.dtype == "bf16" ? DType::bf16 : DType::f32;
}

StatedRates rates_of(const PlanArguments& options, DType dtype) {
  const double by_dtype = dtype == DType::bf16 ? default_tflops_bf16 : default_tflops_fp32;
  StatedRates rates;
  rates.product_flops = 1e12 * positive("--peak-tflops", options.peak_tflops == 0 ? by_dtype : options.peak_tflops);
  rates.memory_bytes = 1e9 * positive("--memory-gbs", options.memory_gbs);
  rates.network_bytes = 1e9 * positive("--network-gbs", options.network_gbs);
  rates.tensor_link_bytes =
      1e9 * positive("--tensor-gbs", options.tensor_gbs == 0 ? options.network_gbs : options.tensor_gbs);
  return rates;
}

void apply_grid(const PlanArguments& options, Config& config, std::vector<std::string>& notes) {
  ParallelSection& parallel = config.parallel;
  if (options.grid.empty()) {
    if (parallel.data == 0) parallel.data = 1;
    return;
  }
  const ParallelSection grid = parse_grid(options.grid);
  const bool other_data = parallel.data != 0 && parallel.data != grid.data;
  if (other_data || parallel.tensor != grid.tensor) {
    notes.push_back(fmt::format("--grid {} replaces the configuration's parallel.data = {}, parallel.tensor = {}",
                                options.grid, parallel.data, parallel.tensor));
  }
  parallel.data = grid.data;
  parallel.tensor = grid.tensor;
}

std::int64_t vocabulary_of(const PlanArguments& options, Config& config, std::vector<std::string>& notes) {
  if (options.vocabulary > 0) {
    config.model.vocab_size = options.vocabulary;
    return options.vocabulary;
  }
  if (config.model.vocab_size > 0) return config.model.vocab_size;
  try {
    const ShardSet shards = open_training_shards(config);
    notes.push_back(fmt::format("vocabulary of {} tokens from {}", shards.vocab_size(), shards.glob()));
    return shards.vocab_size();
  } catch (const Error& error) {
    throw UsageError(
        fmt::format("plan: the vocabulary is not known: give --vocab N, or set model.vocab_size ({})", error.what()));
  }
}

/// The map that head.map names; else none: balanced clusters are assumed.
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

void plan(const PlanArguments& options) {
  refuse_launcher_ranks("plan", "it computes one rank of any grid: run it once, without mpirun");
  Config config = load_config(options.config, options.overrides);
  std::vector<std::string> notes;
  apply_grid(options, config, notes);
  const std::int64_t vocabulary = vocabulary_of(options, config, notes);
  mark_documents(config, 0, "");  // which token it is does not matter here
  resolve(config, vocabulary, config.parallel.data * config.parallel.tensor);
  const DType dtype = dtype_of(options, config);
  check_device(config, dtype);
  const std::optional<CodeMap> map = map_of(config, notes);
  PlanOptions plan_options;
  plan_options.activation = dtype;
  plan_options.rates = rates_of(options, dtype);
  plan_options.map = map ? &*map : nullptr;
  std::optional<std::size_t> memory;
  if (!options.device_memory.empty()) memory = parse_bytes(options.device_memory, "--device-memory");
  std::size_t reserve = memory ? unaccounted_bytes(*memory) : 0;
  if (!options.reserve.empty()) reserve = options.reserve == "0" ? 0 : parse_bytes(options.reserve, "--reserve");
  if (config.parallel.tensor > 1 && options.tensor_gbs == 0) {
    notes.push_back(
        "the tensor group is counted at --network-gbs; where its ranks share a node, --tensor-gbs says what their "
        "links give (an H200's NVLink: 450)");
  }
  const PlanReport report = make_plan_report(config, plan_options, memory, reserve, std::move(notes));
  std::fputs(to_text(report).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, to_json(report));
  if (!report.fits()) {
    throw Error(fmt::format("the run does not fit: a rank takes {}, and {} of --device-memory {} are left for it",
                            human_bytes(static_cast<double>(report.step.memory.total())),
                            human_bytes(static_cast<double>(report.available())), options.device_memory));
  }
}

}  // namespace

void add_plan_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "plan", "Compute a run's memory, communication and time on a process grid, without hardware or data");
  auto options = std::make_shared<PlanArguments>();
  command->add_option("--config", options->config, "TOML file; every key has a default")->type_name("FILE");
  command->add_option("--set", options->overrides, "override one key: section.key=value (may be repeated)")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command->add_option("--grid", options->grid, "data x tensor ranks (default: parallel.* of the configuration)")
      ->type_name("8x2");
  command->add_option("--device-memory", options->device_memory, "of a rank's device: 80GB, 80GiB, 512M")
      ->type_name("SIZE");
  command
      ->add_option("--reserve", options->reserve,
                   "of it, for what is not counted: the driver, the libraries, the kernels' scratch (default: 1GiB, a "
                   "tenth of a smaller device)")
      ->type_name("SIZE");
  command
      ->add_option("--vocab", options->vocabulary,
                   "tokens of the vocabulary (default: model.vocab_size, else what the shards of data.train say)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{2147483647}));
  command
      ->add_option("--dtype", options->dtype,
                   "what the device computes in (default: bf16, unless train.precision = \"fp32\")")
      ->check(CLI::IsMember({"bf16", "fp32"}));
  command->add_option("--peak-tflops", options->peak_tflops,
                      "rate of matrix products, TFLOP/s (default 790 in bf16, 67 in fp32: an H200's)");
  command->add_option("--memory-gbs", options->memory_gbs, "rate of device memory, GB/s (an H200's)")
      ->capture_default_str();
  command
      ->add_option("--network-gbs", options->network_gbs,
                   "what a rank sends to its data group, GB/s (one link of 400 Gbit/s a GPU)")
      ->capture_default_str();
  command->add_option("--tensor-gbs", options->tensor_gbs,
                      "what a rank sends to its tensor group, GB/s (default: as --network-gbs)");
  command->add_option("--json", options->json, "write the plan here too")->type_name("FILE");
  command->footer(
      "Builds the program's own model and optimizer for one rank of the grid, without memory, and runs one "
      "step in\n"
      "which every op and collective only counts. The time is the larger one of operations / peak and bytes "
      "/ memory\n"
      "rate of every op, plus what collectives add at the network's rate; a real run is slower.\n"
      "Examples:\n"
      "  vqlm plan --config configs/gpt2-small-vq.toml --vocab 50257 --grid 8x1 --device-memory 80GB\n"
      "  vqlm plan --config configs/1b5-dense.toml --vocab 128000 --grid 8x2 --device-memory 80GB \\\n"
      "    --set train.micro_batch=16 --tensor-gbs 400 --json plan.json");
  command->callback([options] { plan(*options); });
}

}  // namespace vqlm
