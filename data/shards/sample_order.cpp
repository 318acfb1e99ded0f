#include "data/shards/sample_order.h"

#include <spdlog/fmt/fmt.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "data/shards/permutation.h"

namespace vqlm {
namespace {

std::uint64_t samples_of(std::uint64_t tokens, std::uint64_t seq_len) {
  return tokens == 0 ? 0 : (tokens - 1) / seq_len;
}

[[noreturn]] void refuse_short(const std::string& glob, std::uint64_t tokens, std::uint64_t seq_len) {
  throw Error(
      fmt::format("{}: {} tokens, fewer than one sample of data.seq_len + 1 = {}; lower data.seq_len or "
                  "prepare more text",
                  glob, tokens, seq_len + 1));
}

}  // namespace

SampleOrder::SampleOrder(const ShardSet& shards, std::uint64_t seq_len, std::uint64_t seed) : seq_len_(seq_len) {
  const std::uint64_t samples = samples_of(shards.total_tokens(), seq_len);
  if (samples == 0) refuse_short(shards.glob(), shards.total_tokens(), seq_len);
  sources_.push_back({.name = only_source, .first_token = 0, .samples = samples, .seed = seed});
  add_stages({{.first_sample = 0, .shares = {1}}});
}

SampleOrder::SampleOrder(const ShardSet& shards, const std::vector<std::string>& sources,
                         std::vector<MixtureStage> stages, std::uint64_t seq_len, std::uint64_t seed)
    : seq_len_(seq_len) {
  for (std::size_t s = 0; s < sources.size(); ++s) {
    const std::string& name = sources[s];
    const auto part = std::ranges::find_if(
        shards.parts(), [&](const ShardSet::Part& candidate) { return candidate.source.name == name; });
    VQLM_ASSERT(part != shards.parts().end());
    const bool used = std::ranges::any_of(stages, [&](const MixtureStage& stage) { return stage.shares[s] > 0; });
    const std::uint64_t samples = samples_of(part->tokens, seq_len);
    if (used && samples == 0) refuse_short(part->source.glob, part->tokens, seq_len);
    // Two sources of as many samples do not walk in step.
    const std::uint64_t own = name == only_source ? seed : XXH3_64bits_withSeed(name.data(), name.size(), seed);
    sources_.push_back({.name = name, .first_token = part->first_token, .samples = samples, .seed = own});
  }
  add_stages(std::move(stages));
}

void SampleOrder::add_stages(std::vector<MixtureStage> stages) {
  VQLM_ASSERT(!stages.empty() && stages.front().first_sample == 0);
  std::vector<std::uint64_t> before(sources_.size(), 0);
  for (MixtureStage& stage : stages) {
    VQLM_ASSERT(stage.shares.size() == sources_.size());
    if (!stages_.empty()) {
      Stage& last = stages_.back();
      VQLM_ASSERT(last.first_sample < stage.first_sample);
      last.turns.seek(stage.first_sample - last.first_sample);
      const std::vector<std::uint64_t> counts = last.turns.counts();
      for (std::size_t s = 0; s < before.size(); ++s) before[s] += counts[s];
    }
    stages_.push_back({stage.first_sample, Apportionment(std::move(stage.shares)), before});
  }
}

SampleOrder::Stage& SampleOrder::stage_of(std::uint64_t n) {
  const auto after = std::upper_bound(stages_.begin(), stages_.end(), n, [](std::uint64_t place, const Stage& stage) {
    return place < stage.first_sample;
  });
  return *std::prev(after);
}

SampleOrder::Sample SampleOrder::at(std::uint64_t n) {
  Stage& stage = stage_of(n);
  stage.turns.seek(n - stage.first_sample);
  Sample sample{.source = stage.turns.next()};
  const Source& source = sources_[sample.source];
  const std::uint64_t turn = stage.before[sample.source] + stage.turns.count(sample.source) - 1;
  sample.epoch = turn / source.samples;
  sample.number = Permutation(source.samples, source.seed, sample.epoch)(turn % source.samples);
  sample.first_token = source.first_token + sample.number * seq_len_;
  return sample;
}

std::vector<std::uint64_t> SampleOrder::drawn(std::uint64_t n) {
  Stage& stage = stage_of(n);
  stage.turns.seek(n - stage.first_sample);
  std::vector<std::uint64_t> counts = stage.turns.counts();
  for (std::size_t s = 0; s < counts.size(); ++s) counts[s] += stage.before[s];
  return counts;
}

std::uint64_t SampleOrder::distinct(std::uint64_t n) {
  const std::vector<std::uint64_t> turns = drawn(n);
  std::uint64_t all = 0;
  for (std::size_t s = 0; s < sources_.size(); ++s) all += std::min(turns[s], sources_[s].samples);
  return all;
}

std::vector<std::uint64_t> SampleOrder::distinct_first_tokens(std::uint64_t n) {
  const std::vector<std::uint64_t> turns = drawn(n);
  std::vector<std::uint64_t> tokens;
  tokens.reserve(distinct(n));
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    const Source& source = sources_[s];
    if (source.samples == 0) continue;
    const Permutation first_epoch(source.samples, source.seed, 0);  // later ones read the same samples again
    const std::uint64_t read = std::min(turns[s], source.samples);
    for (std::uint64_t turn = 0; turn < read; ++turn) {
      const std::uint64_t number = read == source.samples ? turn : first_epoch(turn);
      tokens.push_back(source.first_token + number * seq_len_);
    }
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

std::uint64_t SampleOrder::place_of_turn(std::size_t source, std::uint64_t turn) {
  const auto after =
      std::ranges::upper_bound(stages_, turn, {}, [&](const Stage& stage) { return stage.before[source]; });
  Stage& stage = *std::prev(after);  // of those that begin with so many turns, the last: the others have none
  return stage.first_sample + stage.turns.turns_until(source, turn - stage.before[source]) - 1;
}

std::vector<std::uint64_t> SampleOrder::positions(std::size_t source, std::uint64_t number, std::uint64_t end) {
  std::vector<std::uint64_t> places;
  const Source& from = sources_[source];
  VQLM_ASSERT(number < from.samples);
  const std::uint64_t turns = drawn(end)[source];
  for (std::uint64_t epoch = 0; epoch * from.samples < turns; ++epoch) {
    const std::uint64_t turn = epoch * from.samples + Permutation(from.samples, from.seed, epoch).inverse(number);
    if (turn < turns) places.push_back(place_of_turn(source, turn));
  }
  return places;
}

}  // namespace vqlm
