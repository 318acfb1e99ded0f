#include "train/run/token_counts.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "train/codes/map_counts.h"
#include "train/codes/map_seen.h"
#include "train/run/mixture.h"

namespace vqlm {
namespace {

// Unigram counts and corpus statistics change little beyond this many tokens, and reading them stays a matter of seconds.
constexpr std::uint64_t statistics_tokens = 200'000'000;

/// Counts over all shards as the run reads them from its start: each source's by its share.
std::vector<std::int64_t> count_sources(const ShardSet& train, const Config& config, const CountingRanks& ranks) {
  const std::vector<std::uint64_t> shares = first_shares(config);
  if (shares.size() == 1) return count_tokens(train, statistics_tokens, ranks);
  std::uint64_t all = 0;
  for (const std::uint64_t share : shares) all += share;
  std::vector<double> sums(static_cast<std::size_t>(train.vocab_size()), 0);
  const std::vector<ShardSet::Source> sources = training_sources(config.data);
  for (std::size_t s = 0; s < shares.size(); ++s) {
    const auto named =
        std::ranges::find(train.parts(), sources[s].name, [](const ShardSet::Part& part) { return part.source.name; });
    const ShardSet source = train.part(static_cast<std::size_t>(named - train.parts().begin()));
    if (shares[s] == 0 || source.total_tokens() == 0) continue;
    const double part = static_cast<double>(shares[s]) / static_cast<double>(all);
    const auto tokens = static_cast<std::uint64_t>(part * static_cast<double>(statistics_tokens));
    const std::vector<std::int64_t> counts = count_tokens(source, std::max<std::uint64_t>(tokens, 1), ranks);
    double counted = 0;
    for (const std::int64_t count : counts) counted += static_cast<double>(count);
    const double scale = part * static_cast<double>(std::min(train.total_tokens(), statistics_tokens)) / counted;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += scale * static_cast<double>(counts[i]);
  }
  std::vector<std::int64_t> counts;
  for (const double sum : sums) counts.push_back(static_cast<std::int64_t>(std::ceil(sum)));  // what occurs counts
  return counts;
}

}  // namespace

std::int64_t planned_samples(const Config& config, const TrainState& place) {
  constexpr std::int64_t beyond_every_run = std::int64_t{1} << 53;  // train.steps may say so
  const std::int64_t steps = std::max<std::int64_t>(config.train.steps - place.step, 0);
  if (steps > (beyond_every_run - place.samples) / config.train.global_batch) return beyond_every_run;
  return place.samples + steps * config.train.global_batch;
}

std::int64_t trained_tokens(const Config& config, const ShardSet& train, const TrainState& place) {
  SampleOrder order = sample_order(config, train, place);
  const std::uint64_t samples = order.distinct(static_cast<std::uint64_t>(planned_samples(config, place)));
  return static_cast<std::int64_t>(samples) * config.data.seq_len;
}

TextToCount text_to_count(const Config& config, const ShardSet& train, const TrainState& place) {
  if (config.run.counted_samples == 0) return {train, statistics_tokens};
  return {train, sample_order(config, train, place), static_cast<std::uint64_t>(config.run.counted_samples),
          statistics_tokens};
}

std::vector<std::int64_t> count_text(const TextToCount& text, const Config& config, const CountingRanks& ranks) {
  return text.samples() > 0 ? count_tokens(text, ranks) : count_sources(text.shards(), config, ranks);
}

std::string describe_counted(const TextToCount& text, std::int64_t trained) {
  const auto tokens = static_cast<std::int64_t>(text.tokens());
  if (text.samples() == 0)
    return fmt::format("of all training shards: {} tokens{}", tokens,
                       times_trained_text(tokens, static_cast<double>(trained)));
  const bool part = text.samples() < text.samples_of_run();
  return fmt::format("of the text that is trained on: {} tokens, in {}{} samples{}", tokens, part ? "the first " : "",
                     text.samples(), part ? fmt::format(" of {}", text.samples_of_run()) : "");
}

}  // namespace vqlm
