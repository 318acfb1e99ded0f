#include "train/checkpoint/checkpoint_saver.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <system_error>

#include "core/host_collectives.h"
#include "core/log.h"
#include "train/checkpoint/checkpoint_folder.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

// Of a save that nobody has measured yet: slower than most disks, so that a time limit is not overrun.
constexpr double assumed_bytes_per_second = 50e6;

}  // namespace

CheckpointSaver::CheckpointSaver(CheckpointContents contents, const ProcessGrid& grid, std::filesystem::path folder)
    : contents_(std::move(contents)),
      grid_(grid),
      folder_(std::move(folder)),
      snapshot_(contents_.parameters, contents_.optimizer) {}

void CheckpointSaver::begin(const TrainState& state) {
  double begun = wall_seconds();
  const bool waits = stage_ != Stage::none;
  finish();
  state_ = state;
  if (is_root() && contents_.map != nullptr) map_ = *contents_.map;  // training may go on with another one
  pending_ = {.step = state.step, .path = folder_ / checkpoint_name(state.step)};
  if (waits) {
    pending_.wait_seconds = wall_seconds() - begun;
    log::info("checkpoint of step {}: waited {:.2f} s for the one before it", state.step, pending_.wait_seconds);
    begun = wall_seconds();
  }
  std::function<void()> work = [this] { write_rank_file(); };
  try {
    snapshot_.take(contents_.backend);
  } catch (const std::bad_alloc&) {
    work = [this] {
      throw Error(fmt::format("no host memory for a copy of this rank's slices ({} MiB)", snapshot_.bytes() >> 20));
    };
  }
  pending_.copy_seconds = wall_seconds() - begun;
  stage_ = Stage::writing;
  start(std::move(work));
}

void CheckpointSaver::start(std::function<void()> work) {
  const auto timed = [work = std::move(work)]() -> Outcome {
    const double begun = wall_seconds();
    std::string error;
    try {
      work();
    } catch (const std::exception& failure) {
      error = failure.what();
    }
    return {error, wall_seconds() - begun};
  };
  try {
    task_ = std::async(std::launch::async, timed);
  } catch (const std::system_error&) {  // no thread to be had: then in this one
    std::promise<Outcome> done;
    done.set_value(timed());
    task_ = done.get_future();
  }
}

void CheckpointSaver::write_rank_file() {
  const std::filesystem::path partial = partial_path(pending_.path);
  // Every rank makes the folder, so that none waits for another before it writes.
  std::error_code failed;
  std::filesystem::create_directories(partial, failed);
  if (failed) throw Error(fmt::format("{}: cannot be made: {}", partial.string(), failed.message()));
  snapshot_.write(partial, grid_.world().rank());
}

void CheckpointSaver::complete() {
  const std::filesystem::path partial = partial_path(pending_.path);
  try {
    complete_checkpoint(partial, grid_.world().size(),
                        {.config = to_toml(contents_.config),
                         .tokenizer = contents_.tokenizer,
                         .extras = {.map = map_ ? &*map_ : nullptr,
                                    .tokenizer_sha256 = contents_.tokenizer_sha256,
                                    .sources = contents_.sources},
                         .state = state_});
    publish_checkpoint(partial, pending_.path);
  } catch (...) {
    remove_folder(partial);
    throw;
  }
  const CheckpointSection& section = contents_.config.checkpoint;
  remove_old(folder_, {section.keep, section.keep_every}, state_.step);
}

double CheckpointSaver::progress() const {
  const bool ended = task_.valid() && task_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  return ended ? 1 : 0;
}

void CheckpointSaver::advance(double progress_of_all) {
  if (stage_ == Stage::none) return;
  if (progress_of_all < (stage_ == Stage::writing ? grid_.world().size() : 1)) return;
  const Outcome mine = task_.valid() ? task_.get() : Outcome{};
  switch (stage_) {
    case Stage::writing:
      return end_writing(mine);
    case Stage::completing:
      return end_completing(mine);
    case Stage::removing:
    case Stage::none:
      stage_ = Stage::none;
  }
}

void CheckpointSaver::end_writing(const Outcome& mine) {
  pending_.copy_seconds = max_over(contents_.backend, grid_.world(), pending_.copy_seconds);
  pending_.write_seconds = max_over(contents_.backend, grid_.world(), mine.seconds);
  stage_ = note_failure(mine) ? Stage::removing : Stage::completing;
  if (!is_root()) return;
  if (stage_ == Stage::completing) {
    start([this] { complete(); });
  } else {
    start([this] { remove_folder(partial_path(pending_.path)); });
  }
}

void CheckpointSaver::end_completing(const Outcome& mine) {
  stage_ = Stage::none;
  pending_.write_seconds += max_over(contents_.backend, grid_.world(), mine.seconds);
  if (note_failure(mine)) return;
  slowest_seconds_ = std::max(slowest_seconds_, pending_.copy_seconds + pending_.write_seconds);
  saved_ = pending_;
  failures_in_a_row_ = 0;
}

bool CheckpointSaver::note_failure(const Outcome& mine) {
  const std::string own = mine.error.empty() ? "" : fmt::format("rank {}: {}", grid_.world().rank(), mine.error);
  failure_ = first_text(contents_.backend, grid_.world(), own);
  if (failure_.empty()) return false;
  ++failures_in_a_row_;
  if (is_root()) {
    log::error("the checkpoint of step {} was not saved: {}; earlier ones are as they were", pending_.step, failure_);
  }
  return true;
}

void CheckpointSaver::finish() {
  if (stage_ == Stage::none) return;
  const auto wait = grid_.world().expect_long_wait("writing the checkpoint " + pending_.path.string());
  while (stage_ != Stage::none) {
    if (task_.valid()) task_.wait();
    std::vector<double> sum = {progress()};
    sum_over(contents_.backend, grid_.world(), sum);
    advance(sum.front());
  }
}

double CheckpointSaver::expected_seconds() const {
  if (slowest_seconds_ > 0) return slowest_seconds_;
  return static_cast<double>(snapshot_.bytes()) / assumed_bytes_per_second;
}

}  // namespace vqlm
