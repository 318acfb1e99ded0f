#include "train/tools/refit/gather_class_sums.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/log.h"
#include "core/tensor_arena.h"
#include "data/shards/batch_loader.h"
#include "train/engine/stopwatch.h"
#include "train/tools/refit/hidden_rows.h"

namespace vqlm {
namespace {

constexpr double seconds_between_lines = 10;

}  // namespace

ClassSums gather_class_sums(Backend& backend, Communicator& world, Transformer& model, const CodeMap& map,
                            const ShardSet& shards, const GatherOptions& options) {
  const BatchShape& shape = model.batch();
  const std::int64_t rows = shape.rows();
  // A step of the loader is one batch of each rank, in the order of the ranks.
  BatchLoader loader(shards, {.seq_len = shape.seq_len,
                              .micro_batch = shape.batch,
                              .global_batch = shape.batch * world.size(),
                              .data_rank = world.rank(),
                              .data_size = world.size(),
                              .seed = options.seed});
  const std::int64_t whole = static_cast<std::int64_t>(loader.samples_per_epoch()) / shape.batch;
  if (whole == 0) {
    throw Error(
        fmt::format("{}: {} samples of {} tokens are no whole batch of {}: name more shards, or a smaller --batch",
                    shards.glob(), loader.samples_per_epoch(), shape.seq_len, shape.batch));
  }
  const std::int64_t batches = std::clamp<std::int64_t>((options.tokens + rows - 1) / rows, 1, whole);

  HiddenRows hidden(backend, model, map.groups, projected_dims(model.hidden().extent(1), map.groups, options.dims),
                    options.seed);
  ClassSums sums(map.vocab_size, hidden.dims());
  Tensor tokens, targets, nll;
  TensorArena arena;
  arena.add(tokens, {rows}, DType::i32);
  arena.add(targets, {rows}, DType::i32);
  arena.add(nll, {rows}, DType::f32);
  const Buffer storage = arena.allocate(backend, MemoryUse::workspace);
  const double begun = wall_seconds();
  double next_line = begun + seconds_between_lines;
  for (std::int64_t number = world.rank(); number < batches; number += world.size()) {
    const Batch batch = loader.next();
    backend.copy_from_host(tokens, batch.tokens.data());
    backend.copy_from_host(targets, batch.targets.data());
    model.evaluate(nll, tokens, targets);
    sums.add(hidden.project(), batch.targets);
    if (const double now = wall_seconds(); now >= next_line) {
      next_line = now + seconds_between_lines;
      const double part = static_cast<double>(number + 1) / static_cast<double>(batches);
      log::info("hidden states of {:.1f} % of {} tokens, {:.0f} s left", 100 * part, batches * rows,
                (now - begun) * (1 - part) / part);
    }
  }
  return total_over(backend, world, sums);
}

}  // namespace vqlm
