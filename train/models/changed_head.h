// A run that goes on with another kind of head: `vqlm train --resume-from CHECKPOINT --set head.kind=...`.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "train/checkpoint/model_source.h"
#include "train/config/config.h"

namespace vqlm {

/// Whether the heads are of other kinds: VQ, low-rank, dense, or dense and tied to the embedding.
bool changes_head(const Config& now, const Config& saved);

/// Throws UsageError where no head of `config` can be made of the source's, which must be of another kind: what can be, and
/// the key to set. Possible are
///   VQ to dense      DenseExpansion, after the input codes are folded into the table; tied (with head.members = "embedding"):
///                    the table itself is the matrix
///   low-rank to dense (untied)  MultipliedHead
///   tied to untied   the head's matrix is a copy of the table
///   tied to VQ       with head.members = "embedding": see tied_as_vq().
void check_head_change(const Config& config, const ModelSource& source);

/// The source's model with the head of `config`, which the check above has let through; the last one reads from the ones
/// before it, and all from `source`, which must outlive them. map: of the new VQ head, else null.
std::vector<std::unique_ptr<ModelSource>> with_changed_head(const ModelSource& source, const Config& config,
                                                            const CodeMap* map);

}  // namespace vqlm
