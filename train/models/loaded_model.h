// A model in a back end's memory, built from any ModelSource.
#pragma once

#include <memory>
#include <optional>

#include "core/model/transformer.h"
#include "data/shards/shard_set.h"
#include "train/checkpoint/model_source.h"

namespace vqlm {

struct LoadedModel {
  std::optional<CodeMap> map;
  std::unique_ptr<Transformer> transformer;

  const CodeMap* code_map() const { return map ? &*map : nullptr; }
};

/// The source's model for evaluation, or for generation with this context, this rank's slices filled in. Collective over
/// the group.
LoadedModel load_model(const ModelSource& source, Backend& backend, Communicator& tensor_group, const BatchShape& batch,
                       Purpose purpose = Purpose::evaluation, std::int64_t context = 0);

/// Throws Error where the shards' ids are beyond the model's vocabulary, or of another tokenizer; logs a warning where nothing
/// tells the tokenizer of one of them.
void check_tokenizer(const ModelSource& source, const ShardSet& shards);

}  // namespace vqlm
