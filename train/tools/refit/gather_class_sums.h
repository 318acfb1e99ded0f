// What a code map is re-fitted to: the hidden states that a trained model makes of text.
#pragma once

#include <cstdint>

#include "core/model/transformer.h"
#include "data/shards/shard_set.h"
#include "train/codes/class_sums.h"

namespace vqlm {

struct GatherOptions {
  std::int64_t tokens = 0;  // about so many, in whole batches: at least one, at most the shards' whole ones
  std::int64_t dims = 0;    // of the projection; projected_dims() makes them fit
  std::uint64_t seed = 0;   // of the projection and of the choice of samples
};

/// Runs `model`, which is whole on every rank and has this map, over samples drawn from all shards without repetition,
/// and sums the projected hidden states by the token that they predict. Ranks share the batches; which rows a batch has
/// does not depend on how many ranks there are, so that neither do the sums (with another number of threads a product's
/// last bits may differ, and a value may be rounded the other way). The same result on every rank; logs how far it is
/// now and then. Collective. Throws Error where the shards do not fill one batch.
ClassSums gather_class_sums(Backend& backend, Communicator& world, Transformer& model, const CodeMap& map,
                            const ShardSet& shards, const GatherOptions& options);

}  // namespace vqlm
