// What to do where a run does not fit.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <functional>

#include "core/error.h"
#include "train/config/enum_words.h"
#include "train/engine/human_bytes.h"
#include "train/engine/plan.h"

namespace vqlm {
namespace {

int ranks_of(const Config& config) {
  return config.parallel.data * config.parallel.tensor;
}

/// The configuration with a change, or nothing where its keys do not agree then.
std::optional<Config> changed(const Config& config, const std::function<void(Config&)>& change) {
  Config result = config;
  change(result);
  try {
    resolve(result, config.model.vocab_size, ranks_of(result));
  } catch (const UsageError&) {
    return std::nullopt;
  }
  return result;
}

/// The micro-batches that the batch and the grid allow, in rising order.
std::vector<std::int64_t> possible_micro_batches(const Config& config) {
  std::vector<std::int64_t> sizes;
  const std::int64_t per_group = config.train.global_batch / config.parallel.data;
  for (std::int64_t size = 1; size <= per_group; ++size) {
    const bool rows_divide = size * config.data.seq_len % config.parallel.tensor == 0;
    if (per_group % size == 0 && rows_divide) sizes.push_back(size);
  }
  return sizes;
}

std::size_t bytes_with_micro_batch(Config config, const PlanOptions& options, std::int64_t size) {
  config.train.micro_batch = size;
  return plan_memory(config, options).total();
}

std::string gib(std::size_t bytes) {
  return human_bytes(static_cast<double>(bytes));
}

}  // namespace

std::optional<std::int64_t> largest_micro_batch(const Config& config, const PlanOptions& options,
                                                std::size_t available) {
  const std::vector<std::int64_t> sizes = possible_micro_batches(config);
  // Memory grows with the micro-batch.
  const auto too_large = std::partition_point(sizes.begin(), sizes.end(), [&](std::int64_t size) {
    return bytes_with_micro_batch(config, options, size) <= available;
  });
  return too_large == sizes.begin() ? std::nullopt : std::optional(*(too_large - 1));
}

std::vector<MemoryChange> memory_changes(const Config& config, const PlanOptions& options, std::size_t available) {
  const std::size_t before = plan_memory(config, options).total();
  std::vector<MemoryChange> changes;
  const auto add = [&](const std::string& words, const std::optional<Config>& other, const PlanOptions& other_options) {
    if (!other) return;
    const std::size_t bytes = plan_memory(*other, other_options).total();
    if (bytes < before) changes.push_back({words, bytes, bytes <= available});
  };

  for (const Recompute more : {Recompute::cheap, Recompute::block}) {
    if (more <= config.train.recompute) continue;
    add(fmt::format("train.recompute = \"{}\"", word_of(more)),
        changed(config, [&](Config& c) { c.train.recompute = more; }), options);
  }
  const std::int64_t smallest = possible_micro_batches(config).front();
  const std::int64_t size =
      std::min(largest_micro_batch(config, options, available).value_or(smallest), config.train.micro_batch);
  add(fmt::format("train.micro_batch = {}", size), changed(config, [&](Config& c) { c.train.micro_batch = size; }),
      options);

  PlanOptions last_rank = options;
  last_rank.rank = -1;
  const ParallelSection grid = config.parallel;
  const auto add_grid = [&](int data, int tensor) {
    add(fmt::format("parallel.tensor = {}, parallel.data = {} ({} ranks)", tensor, data, data * tensor),
        changed(config, [&](Config& c) { c.parallel.data = data, c.parallel.tensor = tensor; }), last_rank);
  };
  if (grid.data % 2 == 0) add_grid(grid.data / 2, grid.tensor * 2);
  add_grid(grid.data, grid.tensor * 2);
  add_grid(grid.data * 2, grid.tensor);

  add(fmt::format("data.seq_len = {}", config.data.seq_len / 2),
      changed(config, [](Config& c) { c.data.seq_len = std::max<std::int64_t>(1, c.data.seq_len / 2); }), options);
  if (vq_of(config.head) == nullptr) {
    PlanOptions balanced = options;
    balanced.map = nullptr;
    add(fmt::format("head.kind = \"vq\" (clusters {})", VqHeadConfig{}.clusters),
        changed(config,
                [](Config& c) {
                  c.head = VqHeadConfig{};
                  c.model.tie_embeddings = false;
                }),
        balanced);
  }
  return changes;
}

std::size_t unaccounted_bytes(std::size_t total_bytes) {
  return std::min(std::size_t{1} << 30, total_bytes / 10);
}

MemoryPlan require_memory(const Config& config, const PlanOptions& options, std::size_t free_bytes) {
  const MemoryPlan memory = plan_memory(config, options);
  if (memory.total() <= free_bytes) return memory;
  std::string uses;
  for (std::size_t use = 0; use < memory.bytes.size(); ++use) {
    uses += fmt::format("{}{} {}", use == 0 ? "" : ", ", memory_use_names[use], gib(memory.bytes[use]));
  }
  std::vector<std::string> ways;
  for (const MemoryChange& change : memory_changes(config, options, free_bytes)) {
    if (change.fits) ways.push_back(fmt::format("{} (needs {})", change.change, gib(change.bytes)));
  }
  throw Error(fmt::format("out of device memory: needs {} a rank, {} free: {}; {}", gib(memory.total()),
                          gib(free_bytes), uses,
                          ways.empty() ? "no single key mends that: use a smaller model, or more ranks and a "
                                         "smaller train.micro_batch (vqlm plan computes what fits)"
                                       : fmt::format("choose {}", fmt::join(ways, ", or "))));
}

}  // namespace vqlm
