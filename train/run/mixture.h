// A run's sources of text: what its configuration says of them, and how a run that is continued goes on with others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/shards/sample_order.h"
#include "data/shards/shard_set.h"
#include "train/checkpoint/manifest.h"
#include "train/config/config.h"

namespace vqlm {

/// The sources in the order of their first entries; data.train is one of the name only_source, with all of the weight. Throws UsageError where the configuration names none.
std::vector<ShardSet::Source> training_sources(const DataSection& data);

/// The stages of the configuration, in steps of global_batch samples after `place`, where the run stands: shares of
/// training_sources(), and the first sample of each stage. Throws UsageError for weights without a common measure.
std::vector<MixtureStage> mixture_stages(const Config& config, const TrainState& place);

/// The shares of training_sources() with which a run begins.
std::vector<std::uint64_t> first_shares(const Config& config);

/// The order in which a run that stands at `place` reads samples; `shards` are those of training_sources().
SampleOrder sample_order(const Config& config, const ShardSet& shards, const TrainState& place);

/// `config` for a run that goes on from `place`, which was reached by `saved`: the sources and weights that it had until
/// then stay as they were, and where the configuration's weights are others now, a new stage begins with the next step;
/// `told` gets a line about it then. Throws UsageError where a source that the run had is not named any more.
Config continued_mixture(Config config, const Config& saved, const TrainState& place, std::vector<std::string>& told);

/// "web 0.42 epochs (12345 samples), code 1.30 (...)": what a run has read after n samples.
std::string epochs_text(SampleOrder& order, std::uint64_t n);

}  // namespace vqlm
