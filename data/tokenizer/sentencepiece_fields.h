// Field numbers of sentencepiece_model.proto, as released from 0.1.9x on.
#pragma once

#include <cstdint>

namespace vqlm::sentencepiece_fields {

inline constexpr std::uint32_t model_pieces = 1;
inline constexpr std::uint32_t model_trainer = 2;
inline constexpr std::uint32_t model_normalizer = 3;
inline constexpr std::uint32_t piece_text = 1;
inline constexpr std::uint32_t piece_score = 2;
inline constexpr std::uint32_t piece_type = 3;
inline constexpr std::uint32_t trainer_model_type = 3;
inline constexpr std::uint32_t trainer_whitespace_as_suffix = 24;
inline constexpr std::uint32_t trainer_byte_fallback = 35;
inline constexpr std::uint32_t trainer_unk_id = 40;
inline constexpr std::uint32_t trainer_bos_id = 41;
inline constexpr std::uint32_t trainer_eos_id = 42;
inline constexpr std::uint32_t trainer_unk_piece = 45;
inline constexpr std::uint32_t trainer_eos_piece = 47;
inline constexpr std::uint32_t normalizer_name = 1;
inline constexpr std::uint32_t normalizer_charsmap = 2;
inline constexpr std::uint32_t normalizer_dummy_prefix = 3;
inline constexpr std::uint32_t normalizer_remove_extra_whitespaces = 4;
inline constexpr std::uint32_t normalizer_escape_whitespaces = 5;
// Values of trainer_model_type.
inline constexpr std::uint64_t unigram = 1;
inline constexpr std::uint64_t bpe = 2;

}  // namespace vqlm::sentencepiece_fields
