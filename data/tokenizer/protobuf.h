// Protocol buffers (https://protobuf.dev/programming-guides/encoding), as far as SentencePiece's model files need them.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"

namespace vqlm {

/// Walks the fields of one message. Throws Error (beginning with `name`) where the bytes are none.
class ProtobufMessage {
 public:
  ProtobufMessage(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  std::uint32_t field = 0;
  std::uint64_t number = 0;   // of a varint field
  std::string_view contents;  // of a length-delimited field, or of one of four or eight bytes

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
        contents = take(8);
        break;
      case 2:
        contents = take(varint());
        break;
      case 5:
        contents = take(4);
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

/// Writes the fields of one message.
class ProtobufWriter {
 public:
  void number(std::uint32_t field, std::uint64_t value) {
    varint(std::uint64_t{field} << 3);
    varint(value);
  }
  void contents(std::uint32_t field, std::string_view value) {
    varint(std::uint64_t{field} << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  void four_bytes(std::uint32_t field, std::string_view value) {
    varint(std::uint64_t{field} << 3 | 5);
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

}  // namespace vqlm
