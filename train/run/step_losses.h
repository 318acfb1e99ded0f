// The losses of a step's samples: by source, and which samples stand out where the loss jumps.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "core/backend.h"
#include "data/shards/sample_order.h"
#include "data/shards/shard_set.h"
#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/records/metrics.h"
#include "train/run/mixture.h"
#include "train/run/sample_place.h"

namespace vqlm {

/// How far a loss lies above those of the steps before it, in standard deviations as the median absolute deviation gives
/// them (Rousseeuw and Croux 1993: 1.4826 MAD); NaN where there are fewer than `fewest` before it.
class LossWatch {
 public:
  static constexpr std::size_t fewest = 16, most = 64;
  double robust_z(double loss) const;
  void add(double loss);

 private:
  std::deque<double> before_;
};

/// This rank's samples of a step and their losses.
struct StepSamples {
  std::int64_t step = 0;
  std::uint64_t first = 0;            // the run's sample that the step begins with
  std::vector<std::int32_t> sources;  // of this rank's, in their order
  std::vector<double> nll;            // sums over this rank's tokens of each
};

/// A sample of a step.
struct SampleLoss {
  double nll = 0;              // mean over its tokens, in nats
  std::uint64_t position = 0;  // in the run's sequence
};

class StepLosses {
 public:
  /// A loss of this many robust standard deviations above the steps before it is a jump.
  static constexpr double jump = 8;

  /// All must outlive the object.
  StepLosses(Backend& backend, const ProcessGrid& grid, const Config& config, const ShardSet& shards,
             const SampleOrder& order);

  bool has_sources() const { return sources_ > 1; }
  /// Sums of this rank's losses by source; empty for a run of one.
  std::vector<double> by_source(const StepSamples& samples) const;
  /// The same summed over all ranks, as the step's metrics.
  std::vector<SourceMetrics> metrics(const StepSamples& samples, const std::vector<double>& sums);
  /// How often each source was read by the run's sample n, in a line.
  std::string epochs(std::uint64_t n) { return epochs_text(places_.order(), n); }
  /// Where the step's loss jumps, the first rank says so and names the step's worst samples. Collective.
  void watch(double loss, const StepSamples& samples);
  /// Where a sample comes from, in a line.
  std::string describe(const SampleLoss& sample) { return vqlm::describe(places_.at(sample.position)); }
  /// The step's samples by their losses, the worst first, on the first rank; empty on the others. Collective.
  std::vector<SampleLoss> worst(const StepSamples& samples);

 private:
  Backend& backend_;
  const ProcessGrid& grid_;
  const Config& config_;
  SamplePlaces places_;
  std::size_t sources_;
  LossWatch watch_;
  bool jumping_ = false;  // the step before was told of, or would have been
};

}  // namespace vqlm
