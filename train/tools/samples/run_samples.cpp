#include "train/tools/samples/run_samples.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/run/mixture.h"
#include "train/run/resume.h"
#include "train/run/training_inputs.h"

namespace vqlm {
namespace {

Config config_of(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "config.toml";
  if (!std::filesystem::exists(file))
    throw Error(fmt::format("{}: is no run's folder (no config.toml); name the run.dir of a training", run.string()));
  return load_saved_config(file);
}

/// Whether a path, as a shard holds it, is the file or ends with it.
bool is_file(const std::string& path, const std::string& named) {
  return path == named || path.ends_with("/" + named);
}

}  // namespace

RunSamples::RunSamples(const std::filesystem::path& run)
    : config_(config_of(run)), places_([&] {
        ShardSet shards = open_training_shards(config_);
        const std::vector<ListedCheckpoint> checkpoints = list_checkpoints(run / "checkpoints");
        if (!checkpoints.empty()) check_training_shards(CheckpointReader(checkpoints.back().path, Verify::no), shards);
        read_paces(run / "metrics.jsonl");
        SampleOrder order = sample_order(config_, shards, state_);
        return SamplePlaces(std::move(shards), std::move(order), static_cast<std::uint64_t>(config_.data.seq_len));
      }()) {}

namespace {

/// A step that was done, and the samples read by then.
struct DoneStep {
  std::int64_t step = 0, samples = 0;
};

std::vector<DoneStep> done_steps(const std::filesystem::path& metrics, std::int64_t seq_len) {
  std::ifstream lines(metrics);
  std::vector<DoneStep> steps;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("loss") || !json.contains("tokens")) continue;
    steps.push_back({json.at("step"), json.at("tokens").get<std::int64_t>() / seq_len});
  }
  return steps;
}

/// Samples before a run's first line where that is not step 1: the run went on from another's checkpoint.
std::int64_t samples_before(const std::vector<DoneStep>& steps, const Config& config) {
  const std::filesystem::path from = config.run.began_from;
  if (!from.empty() && std::filesystem::exists(from / "manifest.json")) {
    const TrainState state = read_manifest(from).state;
    if (state.step + 1 == steps[0].step) return state.samples;
  }
  const bool two = steps.size() > 1 && steps[1].step == steps[0].step + 1;
  return steps[0].samples - (two ? steps[1].samples - steps[0].samples : config.train.global_batch);
}

}  // namespace

void RunSamples::read_paces(const std::filesystem::path& metrics) {
  const std::int64_t seq_len = config_.data.seq_len, batch = config_.train.global_batch;
  const std::vector<DoneStep> steps = done_steps(metrics, seq_len);
  if (!steps.empty() && steps[0].step > 1)
    state_ = {.step = steps[0].step - 1, .samples = samples_before(steps, config_), .tokens = 0};
  for (const DoneStep& done : steps) {
    // A line may be lost (a crash, a full disk): the steps of a gap are taken to be alike.
    const std::int64_t count = done.step - state_.step, samples = done.samples - state_.samples;
    if (count < 1 || samples < count || samples % count != 0)
      throw Error(
          fmt::format("{}: step {} with {} samples follows step {} with {}: lines are missing or of another run, "
                      "so which samples a step had is not known",
                      metrics.string(), done.step, done.samples, state_.step, state_.samples));
    if (paces_.empty() || paces_.back().samples != samples / count)
      paces_.push_back({state_.step + 1, static_cast<std::uint64_t>(state_.samples), samples / count});
    state_ = {.step = done.step, .samples = done.samples, .tokens = done.samples * seq_len};
  }
  if (paces_.empty() || paces_.back().samples != batch)
    paces_.push_back({state_.step + 1, static_cast<std::uint64_t>(state_.samples), batch});
}

std::uint64_t RunSamples::first_sample(std::int64_t step) const {
  if (step < 1 || step > config_.train.steps) {
    throw UsageError(fmt::format("step {}: the run has steps 1 to {} (train.steps)", step, config_.train.steps));
  }
  if (step < paces_.front().first_step) {
    throw UsageError(fmt::format("step {}: the run began from {} at step {}; ask the run that this is of", step,
                                 config_.run.began_from, paces_.front().first_step));
  }
  const auto pace = std::prev(std::ranges::upper_bound(paces_, step, {}, &Pace::first_step));
  return pace->first_sample + static_cast<std::uint64_t>((step - pace->first_step) * pace->samples);
}

std::int64_t RunSamples::step_samples(std::int64_t step) const {
  return std::prev(std::ranges::upper_bound(paces_, step, {}, &Pace::first_step))->samples;
}

std::int64_t RunSamples::step_of(std::uint64_t position) const {
  if (position < paces_.front().first_sample) return paces_.front().first_step - 1;  // or before it
  const auto pace = std::prev(std::ranges::upper_bound(paces_, position, {}, &Pace::first_sample));
  return pace->first_step + static_cast<std::int64_t>(position - pace->first_sample) / pace->samples;
}

std::uint64_t RunSamples::all_samples() const {
  return first_sample(config_.train.steps) + static_cast<std::uint64_t>(step_samples(config_.train.steps));
}

std::vector<RunSamples::Found> RunSamples::find(const std::string& file, std::uint64_t record) {
  std::vector<Found> found;
  std::vector<std::string> files;
  bool records_known = true;
  for (std::size_t part = 0; part < shards().parts().size(); ++part) {
    const ShardSet::Part& of = shards().parts()[part];
    for (std::size_t s = of.first_shard; s < of.first_shard + of.shards; ++s) {
      const ShardSet::Shard& shard = shards().shards()[s];
      const ShardReader reader(shard.path);
      if (reader.meta().sources.size() != 1 || !is_file(reader.meta().sources[0].path, file)) continue;
      files.push_back(reader.meta().sources[0].path);
      const std::vector<std::uint64_t> records = reader.records();
      records_known = records_known && !(records.empty() && shard.documents > 0);
      const auto at = std::ranges::lower_bound(records, record);
      if (at == records.end() || *at != record) continue;
      const auto document = static_cast<std::size_t>(at - records.begin());
      const std::vector<std::uint64_t> offsets = reader.documents();
      found.push_back({.shard = shard.path,
                       .document = document,
                       .file = files.back(),
                       .first_token = shard.first_token + offsets[document],
                       .end_token = shard.first_token + offsets[document + 1],
                       .source = part});
    }
  }
  if (!found.empty()) return found;
  if (files.empty())
    throw Error(fmt::format("{}: no training shard was made of it; name it as `vqlm prepare --input` had it", file));
  if (!records_known)
    throw Error(fmt::format("{}: its shards do not tell records; run `vqlm prepare --force` for shards that do", file));
  throw Error(fmt::format(
      "{}: record {} is in no training shard: it was held out, has no text, or the file has fewer records (from 0)",
      file, record));
}

std::vector<std::uint64_t> RunSamples::positions(const Found& document) {
  const auto seq_len = static_cast<std::uint64_t>(config_.data.seq_len);
  const std::uint64_t first = order().first_token(document.source);
  const std::uint64_t samples = order().samples_per_epoch(document.source);
  std::vector<std::uint64_t> places;
  for (std::uint64_t number = (document.first_token - first) / seq_len;
       number < samples && first + number * seq_len < document.end_token; ++number) {
    const auto of_sample = order().positions(document.source, number, all_samples());
    places.insert(places.end(), of_sample.begin(), of_sample.end());
  }
  std::ranges::sort(places);
  return places;
}

}  // namespace vqlm
