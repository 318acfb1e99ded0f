// The words for enumerated settings, in configurations, messages, reports and the files of other programs.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "train/config/config.h"

namespace vqlm {

/// An enum's words, in the order of its values.
template <class Enum>
inline constexpr std::array<std::string_view, 0> words = {};
template <>
inline constexpr std::array<std::string_view, 3> words<RopeScaling::Kind> = {"none", "linear", "llama3"};
template <>
inline constexpr std::array<std::string_view, 3> words<Recompute> = {"none", "cheap", "block"};
template <>
inline constexpr std::array<std::string_view, 3> words<QkNorm> = {"none", "head", "width"};
template <>
inline constexpr std::array<std::string_view, 3> words<NormPlacement> = {"pre", "post", "both"};
template <>
inline constexpr std::array<std::string_view, 2> words<Activation> = {"swiglu", "geglu"};
template <>
inline constexpr std::array<std::string_view, 4> words<HeadKind> = {"dense", "vq", "low_rank", "adaptive"};
template <>
inline constexpr std::array<std::string_view, 3> words<CodebookLearning> = {"gradient", "commitment", "ema"};
template <>
inline constexpr std::array<std::string_view, 3> words<MemberVectors> = {"embedding", "codes", "none"};
template <>
inline constexpr std::array<std::string_view, 2> words<CountedText> = {"trained", "all"};
template <>
inline constexpr std::array<std::string_view, 3> words<Precision> = {"auto", "fp32", "bf16"};
template <>
inline constexpr std::array<std::string_view, 3> words<ScheduleKind> = {"constant", "cosine", "wsd"};
template <>
inline constexpr std::array<std::string_view, 2> words<OptimizerKind> = {"adamw", "muon"};
template <>
inline constexpr std::array<std::string_view, 2> words<TableUpdate> = {"dense", "rows"};
template <>
inline constexpr std::array<std::string_view, 3> words<DeviceKind> = {"auto", "cpu", "cuda"};

template <class Enum>
constexpr std::string_view word_of(Enum value) {
  static_assert(!words<Enum>.empty(), "an enum without words");
  return words<Enum>[static_cast<std::size_t>(value)];
}

/// The value that a word stands for; none for other words.
template <class Enum>
constexpr std::optional<Enum> value_of(std::string_view word) {
  static_assert(!words<Enum>.empty(), "an enum without words");
  const auto* const found = std::find(words<Enum>.begin(), words<Enum>.end(), word);
  if (found == words<Enum>.end()) return std::nullopt;
  return static_cast<Enum>(found - words<Enum>.begin());
}

}  // namespace vqlm
