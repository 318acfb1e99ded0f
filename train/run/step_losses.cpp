#include "train/run/step_losses.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/host_collectives.h"
#include "core/log.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

constexpr std::size_t worst_named = 3;

}  // namespace

double LossWatch::robust_z(double loss) const {
  if (before_.size() < fewest) return std::numeric_limits<double>::quiet_NaN();
  std::vector<double> values(before_.begin(), before_.end());
  const double center = median(values);
  for (double& value : values) value = std::abs(value - center);
  // Losses that are all but equal (a converged toy) do not make every flicker a jump.
  const double deviation = std::max(1.4826 * median(values), 1e-3 * std::abs(center));
  return (loss - center) / deviation;
}

void LossWatch::add(double loss) {
  if (!std::isfinite(loss)) return;
  before_.push_back(loss);
  if (before_.size() > most) before_.pop_front();
}

StepLosses::StepLosses(Backend& backend, const ProcessGrid& grid, const Config& config, const ShardSet& shards,
                       const SampleOrder& order)
    : backend_(backend),
      grid_(grid),
      config_(config),
      places_(shards, order, static_cast<std::uint64_t>(config.data.seq_len)),
      sources_(order.sources()) {}

std::vector<double> StepLosses::by_source(const StepSamples& samples) const {
  if (!has_sources()) return {};
  std::vector<double> sums(sources_, 0.0);
  for (std::size_t i = 0; i < samples.nll.size(); ++i)
    sums[static_cast<std::size_t>(samples.sources[i])] += samples.nll[i];
  return sums;
}

std::vector<SourceMetrics> StepLosses::metrics(const StepSamples& samples, const std::vector<double>& sums) {
  std::vector<SourceMetrics> sources;
  if (!has_sources()) return sources;
  SampleOrder& order = places_.order();
  const std::vector<std::uint64_t> before = order.drawn(samples.first);
  const std::vector<std::uint64_t> after =
      order.drawn(samples.first + static_cast<std::uint64_t>(config_.train.global_batch));
  for (std::size_t s = 0; s < sums.size(); ++s) {
    if (after[s] == 0) continue;
    SourceMetrics source{.name = order.name(s)};
    source.epochs = static_cast<double>(after[s]) / static_cast<double>(order.samples_per_epoch(s));
    const auto tokens = static_cast<double>((after[s] - before[s]) * static_cast<std::uint64_t>(config_.data.seq_len));
    if (tokens > 0) source.loss = sums[s] / tokens;
    sources.push_back(std::move(source));
  }
  return sources;
}

std::vector<SampleLoss> StepLosses::worst(const StepSamples& samples) {
  std::vector<std::uint64_t> own{static_cast<std::uint64_t>(grid_.data_rank())};
  for (const double nll : samples.nll) own.push_back(std::bit_cast<std::uint64_t>(nll));
  const std::vector<std::uint64_t> all = gather_from_all(backend_, grid_.world(), own);
  if (grid_.world().rank() > 0) return {};
  const std::size_t slice = samples.nll.size();
  std::vector<SampleLoss> found(slice * static_cast<std::size_t>(grid_.data_size()));
  for (std::size_t i = 0; i < found.size(); ++i) found[i].position = samples.first + i;
  for (std::size_t rank = 0; rank < all.size() / own.size(); ++rank) {
    const std::uint64_t* const of_rank = all.data() + rank * own.size();
    // Ranks of a tensor group have a part of each sample's tokens.
    for (std::size_t i = 0; i < slice; ++i) found[of_rank[0] * slice + i].nll += std::bit_cast<double>(of_rank[1 + i]);
  }
  for (SampleLoss& sample : found) sample.nll /= static_cast<double>(config_.data.seq_len);
  std::ranges::stable_sort(found, [](const SampleLoss& a, const SampleLoss& b) {
    return std::isnan(a.nll) != std::isnan(b.nll) ? std::isnan(a.nll) : a.nll > b.nll;
  });
  return found;
}

void StepLosses::watch(double loss, const StepSamples& samples) {
  const double z = watch_.robust_z(loss);
  watch_.add(loss);
  const bool jumps = !std::isfinite(loss) || z >= jump;  // false where z is not known
  const bool did_jump = std::exchange(jumping_, jumps);
  if (!jumps || did_jump) return;  // losses that stay up, as after a change of sources, are told once
  const std::vector<SampleLoss> found = worst(samples);
  if (grid_.world().rank() > 0) return;
  if (std::isfinite(loss)) {
    log::warn(
        "step {}: the loss jumps to {:.4f}, {:.1f} robust standard deviations above the steps before it; its "
        "worst samples:",
        samples.step, loss, z);
  } else {
    log::warn("step {}: the loss is {}; its worst samples:", samples.step, loss);
  }
  try {
    for (std::size_t i = 0; i < std::min(worst_named, found.size()); ++i) {
      log::warn("  loss {:.4f}: {}", found[i].nll, describe(found[i]));
    }
  } catch (const Error& error) {  // shards that moved since they were opened: no reason to end the run
    log::warn("  they cannot be told: {}", error.what());
  }
  log::warn("  vqlm samples --run {} --step {} --text shows all of them", config_.run.dir, samples.step);
}

}  // namespace vqlm
