#include "data/prepare/document.h"

#include <simdjson.h>
#include <spdlog/fmt/fmt.h>

namespace vqlm {

// simdjson: 2.5 GB/s on C4 lines where nlohmann's SAX reader takes 0.23 GB/s, a third of the time of the
// tokenizer with its word cache.
struct DocumentParser::Json {
  simdjson::dom::parser parser;
};

std::string_view describe(BadRecord reason) {
  switch (reason) {
    case BadRecord::not_json:
      return "not a JSON object";
    case BadRecord::no_text:
      return "no text field, or nothing in it";
    case BadRecord::not_utf8:
      return "not valid UTF-8, or with a NUL in plain text";
    case BadRecord::too_long:
      return "longer than 64 MiB";
  }
  return "?";
}

std::string describe(const BadRecordCounts& counts) {
  std::string text;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    text += fmt::format("{}{} records: {}", text.empty() ? "" : ", ", counts[i], describe(static_cast<BadRecord>(i)));
  }
  return text;
}

DocumentParser::DocumentParser(std::string text_field)
    : text_field_(std::move(text_field)), json_(std::make_unique<Json>()) {}
DocumentParser::~DocumentParser() = default;
DocumentParser::DocumentParser(DocumentParser&&) noexcept = default;

DocumentParser::Result DocumentParser::parse(TextFormat format, const TextReader::Record& record) {
  if (record.too_long) return {false, {}, BadRecord::too_long};
  if (format == TextFormat::plain_text) {
    const bool binary = record.bytes.find('\0') != std::string_view::npos;
    if (binary || !simdjson::validate_utf8(record.bytes)) return {false, {}, BadRecord::not_utf8};
    return {true, record.bytes, {}};
  }
  simdjson::dom::object object;
  const simdjson::error_code code =
      json_->parser.parse(record.bytes.data(), record.bytes.size()).get_object().get(object);
  if (code != simdjson::SUCCESS) {
    // The parser names the first thing it trips over; whether the bytes are text at all comes first for the
    // user.
    const bool utf8 = simdjson::validate_utf8(record.bytes);
    return {false, {}, utf8 ? BadRecord::not_json : BadRecord::not_utf8};
  }
  std::string_view text;
  if (object.at_key(text_field_).get_string().get(text) != simdjson::SUCCESS || text.empty()) {
    return {false, {}, BadRecord::no_text};
  }
  return {true, text, {}};
}

}  // namespace vqlm
