// vqlm plan: what a configuration needs and does on a process grid, computed without hardware and without data.
#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "launch/commands/commands.h"
#include "launch/commands/plan_job.h"
#include "launch/environment.h"
#include "train/config/config_body_check.h"
#include "train/engine/human_bytes.h"
#include "train/tools/plan/measured_rates.h"
#include "train/tools/plan/plan_report.h"
#include "train/tools/plan/search_report.h"

namespace vqlm {
namespace {

// An H200's products, measured on such cards in bf16; its data sheet's fp32 without tensor cores.
constexpr double default_tflops_bf16 = 790;
constexpr double default_tflops_fp32 = 67;

constexpr double default_memory_gbs = 4300;
constexpr double default_network_gbs = 50;

DType dtype_of(const PlanArguments& options, const Config& config) {
  if (!options.gpu.empty()) {
    if (options.dtype != "fp32") return DType::bf16;
    throw UsageError(
        fmt::format("plan: --dtype fp32 with --gpu {}: GPUs compute in bf16; leave out one of them", options.gpu));
  }
  if (options.dtype.empty()) return config.train.precision == Precision::fp32 ? DType::f32 : DType::bf16;
  return options.dtype == "bf16" ? DType::bf16 : DType::f32;
}

StatedRates stated_rates(const PlanArguments& options, const Config& config, DType dtype) {
  if (!options.gpu.empty()) return rates_of(cluster_of(options), config.parallel.data, config.parallel.tensor);
  const double by_dtype = dtype == DType::bf16 ? default_tflops_bf16 : default_tflops_fp32;
  const auto given = [](double rate, double otherwise) { return rate > 0 ? rate : otherwise; };
  const double network_gbs = given(options.network_gbs, default_network_gbs);
  StatedRates rates;
  rates.product_flops = 1e12 * given(options.peak_tflops, by_dtype);
  rates.memory_bytes = 1e9 * given(options.memory_gbs, default_memory_gbs);
  rates.network_bytes = 1e9 * network_gbs;
  rates.tensor_link_bytes = 1e9 * given(options.tensor_gbs, network_gbs);
  return options.measured.empty() ? rates : with_measured(rates, options.measured);
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

void plan(const PlanArguments& options) {
  refuse_launcher_ranks("plan", "it computes one rank of any grid: run it once, without mpirun");
  if (options.search) return search_plan(options);
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
  plan_options.rates = stated_rates(options, config, dtype);
  plan_options.map = map ? &*map : nullptr;
  const DeviceMemory memory = device_memory_of(options);
  if (config.parallel.tensor > 1 && options.tensor_gbs == 0 && options.measured.empty() && options.gpu.empty()) {
    notes.push_back(
        "the tensor group is counted at --network-gbs; where its ranks share a node, --tensor-gbs says what their "
        "links give (an H200's NVLink: 450)");
  }
  std::string machine;
  if (!options.gpu.empty()) {
    const Cluster cluster = cluster_of(options);
    machine = fmt::format("{}; {}", cluster_text(cluster), rates_text(cluster));
  }
  const PlanReport report =
      make_plan_report(config, plan_options, memory.total, memory.reserve, std::move(notes), std::move(machine));
  std::fputs(to_text(report).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, to_json(report));
  if (!report.fits()) {
    throw Error(fmt::format("the run does not fit: a rank takes {}, and {} of {} are left for it",
                            human_bytes(static_cast<double>(report.step.memory.total())),
                            human_bytes(static_cast<double>(report.available())),
                            options.device_memory.empty() ? options.gpu : options.device_memory));
  }
}

/// A number above 0, and at most `most`.
CLI::Validator above_zero(const std::string& what, double most = 1e30) {
  return CLI::Validator(
      [what, most](std::string& text) -> std::string {
        double value = 0;
        if (CLI::detail::lexical_cast(text, value) && value > 0 && value <= most) return {};
        return fmt::format("{}: {} is a number above 0{}", text, what, most == 1 ? " and at most 1" : "");
      },
      "");
}

void add_rates(CLI::App& command, PlanArguments& options) {
  const CLI::Validator rate = above_zero("a rate");
  command
      .add_option("--peak-tflops", options.peak_tflops,
                  "rate of matrix products, TFLOP/s (default: --gpu's; 790 in bf16, 67 in fp32: an H200's)")
      ->check(rate);
  command
      .add_option("--memory-gbs", options.memory_gbs, "rate of device memory, GB/s (default: --gpu's; 4300: an H200's)")
      ->check(rate);
  command
      .add_option(
          "--network-gbs", options.network_gbs,
          "what a rank sends to its data group, with --gpu its part of its node's network, GB/s (default: --gpu's; "
          "50: one link of 400 Gbit/s a GPU)")
      ->check(rate);
  command
      .add_option("--tensor-gbs", options.tensor_gbs,
                  "what a rank sends to its tensor group, with --gpu to GPUs of its node, GB/s (default: --gpu's; as "
                  "--network-gbs)")
      ->check(rate);
}

void add_search(CLI::App& command, PlanArguments& options) {
  std::vector<std::string> names;
  for (const GpuKind& kind : gpu_kinds()) names.emplace_back(kind.name);
  CLI::Option* const gpu =
      command
          .add_option("--gpu", options.gpu,
                      fmt::format("kind of GPU, whose data sheet gives memory and rates: {}", fmt::join(names, ", ")))
          ->type_name("KIND");
  const auto of_gpu = [&](const char* name, auto& value, const std::string& help) {
    return command.add_option(name, value, help)->needs(gpu)->capture_default_str();
  };
  of_gpu("--gpus-per-node", options.gpus_per_node, "GPUs that share a node's links")->check(CLI::Range(1, 1 << 20));
  of_gpu("--product-efficiency", options.product_efficiency, "part of the peak that products reach")
      ->check(above_zero("an efficiency", 1));
  of_gpu("--memory-efficiency", options.memory_efficiency, "part of the memory's rate that other ops reach")
      ->check(above_zero("an efficiency", 1));
  of_gpu("--link-efficiency", options.link_efficiency, "part of a link's rate that collectives reach")
      ->check(above_zero("an efficiency", 1));
  of_gpu("--op-us", options.op_us, "microseconds of every op beside its work")->check(CLI::Range(0.0, 1e6));
  of_gpu("--collective-us", options.collective_us, "microseconds of every collective beside its bytes")
      ->check(CLI::Range(0.0, 1e6));
  CLI::Option* const search =
      command
          .add_flag("--search", options.search,
                    "rank grids of --gpus, micro-batches and recomputation by predicted step time")
          ->needs(gpu);
  CLI::Option* const gpus =
      command.add_option("--gpus", options.gpus, "GPUs of the job")->needs(search)->check(CLI::Range(1, 1 << 20));
  search->needs(gpus);
  search->excludes(command.get_option("--grid"));
  command.add_option("--top", options.top, "lines of the search's table")
      ->needs(search)
      ->check(CLI::Range(std::size_t{1}, std::size_t{1} << 20))
      ->capture_default_str();
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
  add_rates(*command, *options);
  command
      ->add_option(
          "--measured", options->measured,
          "what vqlm bench collectives --json wrote: its rates of the network and of tensor groups, and its latency")
      ->type_name("FILE")
      ->excludes(command->get_option("--network-gbs"))
      ->excludes(command->get_option("--tensor-gbs"));
  add_search(*command, *options);
  command->get_option("--measured")->excludes(command->get_option("--gpu"));
  command->add_option("--json", options->json, "write the plan here too")->type_name("FILE");
  command->footer(
      "With --gpu the rates are the data sheet's times stated efficiencies, and --search plans every grid of --gpus, every\n"
      "micro-batch and every train.recompute that the configuration allows, and ranks those that fit by predicted time\n"
      "(docs/planning.md): predicted, not measured.\n"
      "Builds the program's own model and optimizer for one rank of the grid, without memory, and runs one "
      "step in\n"
      "which every op and collective only counts. Without --gpu the time is the larger one of operations / "
      "peak and\n"
      "bytes / memory rate of every op, plus what collectives add at the network's rate: a real run is slower.\n"
      "Examples:\n"
      "  vqlm plan --config configs/gpt2-small-vq.toml --vocab 50257 --grid 8x1 --device-memory 80GB\n"
      "  vqlm plan --config configs/1b5-dense.toml --vocab 128000 --grid 8x2 --device-memory 80GB \\\n"
      "    --set train.micro_batch=16 --tensor-gbs 400 --json plan.json\n"
      "  vqlm plan --config configs/1b5-dense.toml --vocab 50257 --search --gpus 8 --gpu h100-80");
  command->callback([options] { plan(*options); });
}

}  // namespace vqlm
