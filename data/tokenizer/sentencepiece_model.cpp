#include "data/tokenizer/sentencepiece_model.h"

#include "data/tokenizer/protobuf.h"
#include "data/tokenizer/sentencepiece_fields.h"

namespace vqlm {

namespace fields = sentencepiece_fields;

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
    if (top.field == fields::model_trainer) {
      while (inner.next()) {
        if (inner.field == fields::trainer_model_type) bpe = inner.number == fields::bpe;
        if (inner.field == fields::trainer_whitespace_as_suffix) whitespace_as_suffix = inner.number != 0;
        if (inner.field == fields::trainer_byte_fallback) byte_fallback = inner.number != 0;
      }
    } else if (top.field == fields::model_normalizer) {
      while (inner.next()) {
        if (inner.field == fields::normalizer_charsmap) charsmap = !inner.contents.empty();
        if (inner.field == fields::normalizer_dummy_prefix) dummy_prefix = inner.number != 0;
        if (inner.field == fields::normalizer_remove_extra_whitespaces) remove_extra_whitespaces = inner.number != 0;
        if (inner.field == fields::normalizer_escape_whitespaces) escape_whitespaces = inner.number != 0;
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
  out += static_cast<char>(fields::model_normalizer << 3 | 2);
  out += char{2};
  out += static_cast<char>(fields::normalizer_dummy_prefix << 3);
  out += char{0};
  return out;
}

}  // namespace vqlm
