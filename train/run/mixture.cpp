#include "train/run/mixture.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "core/error.h"

namespace vqlm {
namespace {

/// The entries of a configuration, data.train as one of them.
std::vector<MixEntry> entries_of(const DataSection& data) {
  if (!data.mix.empty()) return data.mix;
  return {{.name = only_source, .train = data.train, .weight = 1}};
}

/// The sample that is the first of an entry's stage.
std::int64_t first_sample(const MixEntry& entry, std::int64_t global_batch, const TrainState& place) {
  if (entry.from_step == 1) return 0;  // whatever global batches the run has had
  if (entry.from_sample != MixEntry::not_set) return entry.from_sample;
  return place.samples + (entry.from_step - 1 - place.step) * global_batch;
}

using Shares = std::map<std::string, std::int64_t>;

/// The shares that apply to the sample at `place`; `counts` says which entries apply.
template <class Counts>
Shares shares_at(const std::vector<MixEntry>& entries, const Counts& counts) {
  Shares shares;
  std::map<std::string, std::int64_t> from;
  for (const MixEntry& entry : entries) {
    if (!counts(entry)) continue;
    const auto [last, is_first] = from.try_emplace(entry.name, entry.from_step);
    if (!is_first && last->second > entry.from_step) continue;
    last->second = entry.from_step;
    shares[entry.name] = entry.share();
  }
  std::erase_if(shares, [](const auto& share) { return share.second == 0; });
  std::int64_t divisor = 0;
  for (const auto& [name, share] : shares) divisor = std::gcd(divisor, share);
  for (auto& [name, share] : shares) share /= divisor;
  return shares;
}

/// The weight that applies to step `step`.
double weight_at(const std::vector<MixEntry>& entries, const std::string& name, std::int64_t step) {
  const MixEntry* last = nullptr;
  for (const MixEntry& entry : entries) {
    if (entry.name == name && entry.from_step <= step && (last == nullptr || entry.from_step > last->from_step))
      last = &entry;
  }
  return last == nullptr ? 0 : last->weight;
}

const MixEntry* entry_with_shards(const std::vector<MixEntry>& entries, const std::string& name) {
  const auto found =
      std::ranges::find_if(entries, [&](const MixEntry& entry) { return entry.name == name && !entry.train.empty(); });
  return found == entries.end() ? nullptr : &*found;
}

std::string shares_text(const Shares& shares) {
  std::int64_t all = 0;
  for (const auto& [name, share] : shares) all += share;
  std::vector<std::string> parts;
  for (const auto& [name, share] : shares)
    parts.push_back(fmt::format("{} {:.4g} %", name, 100.0 * static_cast<double>(share) / static_cast<double>(all)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::uint64_t common_divisor(const std::vector<std::uint64_t>& shares) {
  return std::accumulate(shares.begin(), shares.end(), std::uint64_t{0},
                         [](std::uint64_t a, std::uint64_t b) { return std::gcd(a, b); });
}

/// Without their common divisor; not all are 0.
std::vector<std::uint64_t> reduced(std::vector<std::uint64_t> shares) {
  const std::uint64_t divisor = common_divisor(shares);
  for (std::uint64_t& share : shares) share /= divisor;
  return shares;
}

void check_shares(const MixtureStage& stage) {
  const std::uint64_t divisor = common_divisor(stage.shares);
  const std::uint64_t all = std::accumulate(stage.shares.begin(), stage.shares.end(), std::uint64_t{0});
  if (divisor == 0) {
    throw UsageError(
        fmt::format("data.mix: from sample {} on all weights are 0; give one of them a weight", stage.first_sample));
  }
  if (all / divisor <= Apportionment::largest_period) return;
  throw UsageError(fmt::format(
      "data.mix: the weights from sample {} on have so many digits that their turns repeat after {} samples; "
      "round them, so that this is at most {}",
      stage.first_sample, all / divisor, Apportionment::largest_period));
}

/// The entries with which the run has come to `place`, each with its first sample.
std::vector<MixEntry> history(const Config& saved, const TrainState& place) {
  std::vector<MixEntry> past;
  for (MixEntry entry : entries_of(saved.data)) {
    const std::int64_t begun = first_sample(entry, saved.train.global_batch, place);
    if (begun >= place.samples && entry.from_step > 1) continue;
    if (entry.from_step > 1) entry.from_sample = begun;
    past.push_back(std::move(entry));
  }
  return past;
}

}  // namespace

std::vector<ShardSet::Source> training_sources(const DataSection& data) {
  if (!data.trains()) {
    throw UsageError(
        "data.train is empty: name the training shards, for example data.train='shards/train-*.h5', or sources as "
        "[[data.mix]]");
  }
  std::vector<ShardSet::Source> sources;
  for (const MixEntry& entry : entries_of(data)) {
    const auto known = std::ranges::find(sources, entry.name, &ShardSet::Source::name);
    if (known == sources.end()) {
      sources.push_back({.name = entry.name, .glob = entry.train});
    } else if (known->glob.empty()) {
      known->glob = entry.train;
    }
  }
  return sources;
}

std::vector<MixtureStage> mixture_stages(const Config& config, const TrainState& place) {
  const std::vector<ShardSet::Source> sources = training_sources(config.data);
  std::map<std::int64_t, std::vector<const MixEntry*>> changes;  // by first sample
  const std::vector<MixEntry> entries = entries_of(config.data);
  for (const MixEntry& entry : entries)
    changes[first_sample(entry, config.train.global_batch, place)].push_back(&entry);
  std::vector<MixtureStage> stages;
  std::vector<std::uint64_t> shares(sources.size(), 0);
  for (const auto& [first, of_stage] : changes) {
    for (const MixEntry* entry : of_stage) {
      const auto source = std::ranges::find(sources, entry->name, &ShardSet::Source::name);
      shares[static_cast<std::size_t>(source - sources.begin())] = static_cast<std::uint64_t>(entry->share());
    }
    MixtureStage stage{.first_sample = static_cast<std::uint64_t>(first), .shares = shares};
    check_shares(stage);
    if (stages.empty() || reduced(stage.shares) != reduced(stages.back().shares)) stages.push_back(std::move(stage));
  }
  return stages;
}

std::vector<std::uint64_t> first_shares(const Config& config) {
  std::vector<std::uint64_t> shares;
  for (const ShardSet::Source& source : training_sources(config.data)) {
    std::uint64_t share = 0;
    for (const MixEntry& entry : entries_of(config.data)) {
      if (entry.name == source.name && entry.from_step == 1) share = static_cast<std::uint64_t>(entry.share());
    }
    shares.push_back(share);
  }
  return shares;
}

SampleOrder sample_order(const Config& config, const ShardSet& shards, const TrainState& place) {
  std::vector<std::string> names;
  for (const ShardSet::Source& source : training_sources(config.data)) names.push_back(source.name);
  return {shards, names, mixture_stages(config, place), static_cast<std::uint64_t>(config.data.seq_len),
          static_cast<std::uint64_t>(config.train.seed)};
}

Config continued_mixture(Config config, const Config& saved, const TrainState& place, std::vector<std::string>& told) {
  if ((config.data.mix.empty() && saved.data.mix.empty()) || place.step == 0) return config;
  const std::vector<MixEntry> wanted = entries_of(config.data);
  std::vector<MixEntry> entries = history(saved, place);
  for (MixEntry& past : entries) {
    const MixEntry* const named = entry_with_shards(wanted, past.name);
    if (named == nullptr) {
      throw UsageError(fmt::format(
          "data.mix: the run was trained on the source {} ({}), which is not named: name it with weight = 0 "
          "to leave it out from now on",
          past.name, past.train));
    }
    past.train = named->train;  // a folder may have moved; its shards are compared
  }
  const std::int64_t next = place.step + 1;
  const auto by_now = [&](const MixEntry& entry) { return entry.from_step <= next; };
  const Shares before = shares_at(entries, [](const MixEntry&) { return true; });
  const Shares planned = shares_at(entries_of(saved.data), by_now);
  const Shares now = shares_at(wanted, by_now);
  if (now != before && now != planned)
    told.push_back(fmt::format("data.mix: from step {} on {}; before {}", next, shares_text(now), shares_text(before)));
  // Also names without a weight stay: whoever reads the configuration again opens the shards that a checkpoint lists. A
  // stage of the same shares as the one before it is none.
  for (const ShardSet::Source& source : training_sources(config.data)) {
    const bool is_new = std::ranges::find(entries, source.name, &MixEntry::name) == entries.end();
    const double weight = weight_at(wanted, source.name, next);
    if (!is_new && weight == weight_at(entries, source.name, next)) continue;
    entries.push_back(
        {.name = source.name, .train = source.glob, .weight = weight, .from_step = next, .from_sample = place.samples});
  }
  for (const MixEntry& entry : wanted) {
    if (entry.from_step <= next) continue;
    entries.push_back(entry);
    entries.back().from_sample = MixEntry::not_set;
  }
  config.data.mix = std::move(entries);
  config.data.train.clear();
  return config;
}

std::string epochs_text(SampleOrder& order, std::uint64_t n) {
  const std::vector<std::uint64_t> drawn = order.drawn(n);
  std::vector<std::string> parts;
  for (std::size_t s = 0; s < drawn.size(); ++s) {
    if (order.samples_per_epoch(s) == 0) continue;
    parts.push_back(fmt::format("{} {:.3f} epochs ({} samples)", order.name(s),
                                static_cast<double>(drawn[s]) / static_cast<double>(order.samples_per_epoch(s)),
                                drawn[s]));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace vqlm
