// vqlm plan --search: the grid, micro-batch and recomputation for so many GPUs of a kind, by predicted step time.
#include <spdlog/fmt/fmt.h>

#include <cstdio>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "launch/commands/plan_job.h"
#include "train/config/config_body_check.h"
#include "train/config/enum_words.h"
#include "train/tools/plan/search_report.h"

namespace vqlm {
namespace {

/// What every choice replaces, so that nothing of it can be refused before the choices are made.
void clear_choices(Config& config, std::vector<std::string>& notes) {
  const ParallelSection& grid = config.parallel;
  if (grid.data != 0 || grid.tensor != 1) {
    notes.push_back(
        fmt::format("all grids are tried, not only the configuration's parallel.data = {}, parallel.tensor = {}",
                    grid.data, grid.tensor));
  }
  const TrainSection &train = config.train, usual = {};
  if (train.micro_batch != usual.micro_batch || train.recompute != usual.recompute) {
    notes.push_back(
        fmt::format("all micro-batches and all of train.recompute are tried, not only train.micro_batch = {}, "
                    "train.recompute = \"{}\"",
                    train.micro_batch, word_of(train.recompute)));
  }
  config.parallel.data = config.parallel.tensor = 1;
  config.train.micro_batch = 1;
}

}  // namespace

void search_plan(const PlanArguments& options) {
  if (options.dtype == "fp32") {
    throw UsageError("plan: --dtype fp32 with --search: GPUs compute in bf16; leave out --dtype");
  }
  SearchReport report;
  Config& config = report.config;
  config = load_config(options.config, options.overrides);
  const std::int64_t vocabulary = vocabulary_of(options, config, report.notes);
  clear_choices(config, report.notes);
  mark_documents(config, 0, "");  // which token it is does not matter here
  resolve(config, vocabulary, 1);
  check_device(config, DType::bf16);
  const std::optional<CodeMap> map = map_of(config, report.notes);
  const DeviceMemory memory = device_memory_of(options);
  report.device_memory = *memory.total;
  report.reserve = memory.reserve;
  report.top = options.top;
  report.search = {.cluster = cluster_of(options),
                   .gpus = options.gpus,
                   .available = *memory.total > memory.reserve ? *memory.total - memory.reserve : 0,
                   .map = map ? &*map : nullptr};
  report.result = search_plans(config, report.search);
  std::fputs(to_text(report).c_str(), stdout);
  if (!options.json.empty()) write_file_atomically(options.json, to_json(report));
  if (const std::string problem = report.nothing_fits(); !problem.empty()) {
    if (report.result.too_large.empty()) throw UsageError(problem);
    throw Error(problem);
  }
}

}  // namespace vqlm
