// Names and shapes that the checkpoint's writer and reader share. docs/checkpoints.md describes the layout.
#pragma once

#include "core/tensor.h"
#include "data/hdf5/h5.h"

namespace vqlm {

/// The file of virtual datasets that shows every logical tensor whole.
constexpr const char* checkpoint_file = "checkpoint.h5";
constexpr const char* cluster_of_token_dataset = "vq_head.cluster_of_token";
constexpr const char* member_codes_dataset = "vq_head.member_codes";
constexpr const char* tokenizer_attribute = "tokenizer_sha256";
constexpr const char* train_tokens_attribute = "train_tokens";
constexpr const char* train_shards_attribute = "train_shards";    // of a run of one source
constexpr const char* train_sources_attribute = "train_sources";  // JSON; of a run of several
constexpr const char* trained_here_attribute = "trained_here";    // 1: made of a model that a run of ours trained
constexpr const char* first_moment_prefix = "optimizer.m.";
constexpr const char* second_moment_prefix = "optimizer.v.";

inline h5::Dims dims_of(const Shape& shape) {
  h5::Dims dims;
  for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(static_cast<std::uint64_t>(shape[axis]));
  return dims;
}

}  // namespace vqlm
