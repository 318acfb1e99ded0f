#include "data/tokenizer/sentencepiece_model.h"

#include <cstdint>

#include "data/tokenizer/protobuf.h"

namespace vqlm {

namespace {

// Field numbers of sentencepiece_model.proto, as released from 0.1.9x on.
constexpr std::uint32_t model_trainer_spec = 2;
constexpr std::uint32_t model_normalizer_spec = 3;
constexpr std::uint32_t trainer_model_type = 3;
constexpr std::uint64_t model_type_bpe = 2;
constexpr std::uint32_t trainer_whitespace_as_suffix = 24;
constexpr std::uint32_t trainer_byte_fallback = 35;
constexpr std::uint32_t normalizer_charsmap = 2;
constexpr std::uint32_t normalizer_dummy_prefix = 3;
constexpr std::uint32_t normalizer_remove_extra_whitespaces = 4;
constexpr std::uint32_t normalizer_escape_whitespaces = 5;

}  // namespace

TokenizerTraits tokenizer_traits(std::string_view model, const std::string& name) {
  // The defaults of sentencepiece_model.proto, which fields that are not in the file have.
  bool bpe = false;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  bool charsmap = false;
  bool dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  ProtobufMessage top(model, name);
  while (top.next()) {
    ProtobufMessage inner(top.contents, name);
    if (top.field == model_trainer_spec) {
      while (inner.next()) {
        if (inner.field == trainer_model_type) bpe = inner.number == model_type_bpe;
        if (inner.field == trainer_whitespace_as_suffix) whitespace_as_suffix = inner.number != 0;
        if (inner.field == trainer_byte_fallback) byte_fallback = inner.number != 0;
      }
    } else if (top.field == model_normalizer_spec) {
      while (inner.next()) {
        if (inner.field == normalizer_charsmap) charsmap = !inner.contents.empty();
        if (inner.field == normalizer_dummy_prefix) dummy_prefix = inner.number != 0;
        if (inner.field == normalizer_remove_extra_whitespaces) remove_extra_whitespaces = inner.number != 0;
        if (inner.field == normalizer_escape_whitespaces) escape_whitespaces = inner.number != 0;
      }
    }
  }
  const bool plain = !charsmap && !remove_extra_whitespaces && escape_whitespaces && !whitespace_as_suffix;
  return {bpe, byte_fallback, plain, dummy_prefix};
}

std::string without_dummy_prefix(std::string_view model) {
  // A second occurrence of an embedded message is merged into the first one, its fields replacing the earlier
  // ones.
  std::string out(model);
  out += static_cast<char>(model_normalizer_spec << 3 | 2);
  out += char{2};
  out += static_cast<char>(normalizer_dummy_prefix << 3);
  out += char{0};
  return out;
}

}  // namespace vqlm
