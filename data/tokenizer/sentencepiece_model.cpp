#include "data/tokenizer/sentencepiece_model.h"

#include <spdlog/fmt/fmt.h>

#include <cstdint>

#include "core/error.h"

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

/// Walks the fields of one message.
class Message {
 public:
  Message(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  std::uint32_t field = 0;
  std::uint64_t number = 0;   // of a varint field
  std::string_view contents;  // of a length-delimited field

  bool next() {
    if (bytes_.empty()) return false;
    const std::uint64_t tag = varint();
    field = static_cast<std::uint32_t>(tag >> 3);
    number = 0;
    contents = {};
    switch (tag & 7) {
      case 0:
        number = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        contents = take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        bad();
    }
    return true;
  }

 private:
  [[noreturn]] void bad() const {
    throw Error(fmt::format("{}: is not a SentencePiece model; give the .model file", name_));
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    bad();
  }
  std::string_view take(std::uint64_t n) {
    if (n > bytes_.size()) bad();
    const std::string_view taken = bytes_.substr(0, n);
    bytes_.remove_prefix(n);
    return taken;
  }

  std::string_view bytes_;
  const std::string& name_;
};

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
  Message top(model, name);
  while (top.next()) {
    Message inner(top.contents, name);
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
