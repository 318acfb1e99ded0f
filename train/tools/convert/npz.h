// A model as a NumPy archive, for inspection: numpy.load("model.npz")["model.norm.weight"].
#pragma once

#include <filesystem>

#include "train/checkpoint/model_source.h"

namespace vqlm {

/// Writes `out`: one float32 array NAME.npy a tensor, and for a VQ head vq_head.cluster_of_token (V) int32 and
/// vq_head.member_codes (V, G) uint8; stored, not deflated (weights do not shrink), zip64 where it must be. Streams in boxes
/// of 16 MiB under a temporary name. The same model gives the same bytes. Throws UsageError where `out` is there, and Error
/// naming the file; nothing of it is left then.
void write_npz(const ModelSource& source, const std::filesystem::path& out);

}  // namespace vqlm
