// A tiny run that is saved, continued, damaged and continued again, by the program's own trainer.
#include <spdlog/fmt/fmt.h>

#include <fstream>
#include <memory>
#include <optional>
#include <vector>

#include "core/error.h"
#include "data/shards/token_shards.h"
#include "train/engine/stopwatch.h"
#include "train/run/training_run.h"
#include "train/tools/bench/synthetic_tokens.h"
#include "train/tools/selftest/selftest_files.h"
#include "train/tools/selftest/selftest_model.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t steps = 4, save_every = 2;

void write_shard(const fs::path& folder, const Config& config) {
  const std::int64_t needed = (steps + 1) * config.train.global_batch * config.data.seq_len;
  const std::vector<std::int32_t> drawn =
      draw_tokens(synthetic_counts(TokenDistribution::zipf, config.model.vocab_size), needed, 11, "selftest shard");
  ShardWriter writer((folder / "train-00000.h5").string(), {.vocab_size = config.model.vocab_size,
                                                            .eos_id = 0,
                                                            .tokenizer_sha256 = "selftest",
                                                            .sources = {},
                                                            .text_bytes_known = false});
  constexpr std::int64_t document = 1000;
  for (std::int64_t begin = 0; begin < needed; begin += document) {
    std::vector<std::uint32_t> tokens(drawn.begin() + begin, drawn.begin() + std::min(needed, begin + document));
    tokens.back() = 0;
    writer.add_document(tokens, 0);
  }
  writer.finish();
}

/// The run's configuration; the first call of a selftest makes its shard. Collective.
Config prepare_run(const ProcessGrid& grid, const fs::path& folder) {
  Config config = selftest_config(HeadKind::vq, grid.data_size(), grid.tensor_size());
  if (grid.world().rank() == 0 && !fs::exists(folder / "train-00000.h5")) write_shard(folder, config);
  grid.world().barrier();
  config.data.train = (folder / "train-*.h5").string();
  config.train.steps = steps;
  config.train.check_replicas_every = 1;
  config.checkpoint.every = save_every;
  config.checkpoint.keep = 0;
  config.run.dir = (folder / "run").string();
  return config;
}

struct Part {
  std::int64_t first_step = 0;  // the checkpoint's that it continued from, or 0
  std::uint64_t state = 0;      // of this rank's parameters and moments at the end
};

Part train(Backend& backend, const ProcessGrid& grid, const Config& config, ExistingRun existing) {
  ShardSet shards = open_training_shards(config);
  TrainingRun run(backend, grid, config, std::move(shards),
                  {.existing = existing, .matmul_peak = Trainer::nobodys_peak, .keeps_records = false});
  Trainer& trainer = run.trainer();
  Part part;
  part.first_step = trainer.state().step;
  run.train([] { return false; });
  part.state = fingerprint_of(backend, trainer.model().parameters(), trainer.optimizer());
  return part;
}

fs::path checkpoint_of(const Config& config, std::int64_t step) {
  return fs::path(config.run.dir) / "checkpoints" / fmt::format("step-{:08}", step);
}

/// Flips the bits of the byte in the middle.
void damage(const fs::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
  stream.seekg(middle);
  const auto byte = static_cast<char>(stream.get() ^ 0xff);
  stream.seekp(middle);
  stream.put(byte);
  stream.close();
  if (!stream) throw Error(fmt::format("{}: cannot be changed; choose another --dir", file.string()));
}

DoctorCheck other_bits(int rank, const char* when) {
  return {
      .ok = false,
      .text = fmt::format("rank {} has other bits after {}: a checkpoint does not come back from this file system as "
                          "it was written, or steps are not repeatable here (see determinism)",
                          rank, when)};
}

}  // namespace

DoctorCheck check_resume(Backend& backend, const ProcessGrid& grid, const fs::path& folder) {
  const double begin = wall_seconds();
  const Config config = prepare_run(grid, folder);
  const Part whole = train(backend, grid, config, ExistingRun::refuse);
  grid.world().barrier();
  if (grid.world().rank() == 0) fs::rename(checkpoint_of(config, steps), folder / "newest");
  grid.world().barrier();
  const Part continued = train(backend, grid, config, ExistingRun::resume);
  if (continued.first_step != save_every) {
    return {.ok = false,
            .text = fmt::format("rank {} continued from step {} instead of {}: it does not see the checkpoint in {}",
                                grid.world().rank(), continued.first_step, save_every, config.run.dir)};
  }
  if (continued.state != whole.state) return other_bits(grid.world().rank(), "continuing from a checkpoint");
  return {.text = fmt::format("saved by {} rank{}, continued: the same bits, {:.1f} s", grid.world().size(),
                              grid.world().size() == 1 ? "" : "s", wall_seconds() - begin)};
}

DoctorCheck check_damage(Backend& backend, const ProcessGrid& grid, const fs::path& folder) {
  const double begin = wall_seconds();
  const Config config = prepare_run(grid, folder);
  const fs::path newest = checkpoint_of(config, steps);
  const int damaged = std::min(grid.world().size(), 8);
  DoctorCheck result;
  if (grid.world().rank() == 0) {
    for (int rank = 0; rank < damaged; ++rank) {
      const fs::path file = newest / fmt::format("rank-{:05}.h5", rank);
      damage(file);
      try {
        const CheckpointReader reader(newest, Verify::yes);
        result = {.ok = false, .text = fmt::format("{}: a changed byte was not noticed", file.string())};
      } catch (const Error&) {  // as it should be
      }
      if (rank + 1 < damaged) damage(file);  // whole again; the last one stays damaged
    }
  }
  grid.world().barrier();
  const Part continued = train(backend, grid, config, ExistingRun::resume);
  if (!result.ok) return result;
  if (continued.first_step != save_every) {
    return {.ok = false,
            .text = fmt::format("rank {} continued from step {} instead of falling back to step {}",
                                grid.world().rank(), continued.first_step, save_every)};
  }
  return {.text = fmt::format("{} damaged rank file{} refused, --resume fell back to step {}, {:.1f} s", damaged,
                              damaged == 1 ? "" : "s", save_every, wall_seconds() - begin)};
}

}  // namespace vqlm
