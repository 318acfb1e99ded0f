// Heads of configurations, for tests that are parameterised by kinds.
#pragma once

#include "core/model_config.h"
#include "train/config/config.h"

namespace vqlm::testing {

/// The VQ head of a configuration that has one.
inline VqHeadConfig& vq(Config& config) {
  return std::get<VqHeadConfig>(config.head);
}
inline const VqHeadConfig& vq(const Config& config) {
  return std::get<VqHeadConfig>(config.head);
}
inline const VqHeadConfig& vq(const HeadConfig& head) {
  return std::get<VqHeadConfig>(head);
}

/// `vq`, a head of rank 5, an adaptive one of three bands, or a dense one.
inline HeadConfig head_of(HeadKind kind, VqHeadConfig vq) {
  if (kind == HeadKind::vq) return vq;
  if (kind == HeadKind::low_rank) return LowRankHeadConfig{.bias = vq.bias, .rank = 5};
  if (kind == HeadKind::adaptive) return AdaptiveHeadConfig{.bias = vq.bias, .cutoffs = {5, 17}, .tail_ratio = 3};
  return DenseHeadConfig{.bias = vq.bias};
}

/// None for no groups.
inline decltype(VqHeadConfig::members) code_members(int groups, int codes) {
  if (groups == 0) return NoMembersConfig{};
  return CodeMembersConfig{.groups = groups, .codes = codes};
}

inline decltype(VqHeadConfig::learning) learning_by(CodebookLearning learning) {
  if (learning == CodebookLearning::commitment) return CommitmentLearningConfig{};
  if (learning == CodebookLearning::ema) return EmaLearningConfig{};
  return GradientLearningConfig{};
}

/// Groups of the members that a configuration has, whatever they are; its codes stay.
inline void set_groups(Config& config, int groups) {
  if (auto* head = std::get_if<VqHeadConfig>(&config.head)) head->members = code_members(groups, head->codes());
}

inline void set_future(Config& config, int heads) {
  std::visit([&](auto& head) { head.future.heads = heads; }, config.head);
}

inline void set_bias(Config& config, bool bias) {
  std::visit([&](auto& head) { head.bias = bias; }, config.head);
}

}  // namespace vqlm::testing
