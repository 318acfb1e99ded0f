// The text of a record: what of a file becomes a document, and why the rest does not.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "data/prepare/text_reader.h"

namespace vqlm {

/// The reason why a record has no text.
enum class BadRecord { not_json, no_text, not_utf8, too_long, endless_word };
constexpr int bad_record_count = 5;

/// Returns the reason as messages say it: "not a JSON object".
std::string_view describe(BadRecord reason);

/// The numbers of bad records, by BadRecord.
using BadRecordCounts = std::array<std::size_t, bad_record_count>;

/// Returns the counts as messages say them: "3 records: not a JSON object, 1 record: ..."; empty where all are 0.
std::string describe(const BadRecordCounts& counts);

/// Finds the text of records; keeps its buffers from one record to the next, so one belongs to one thread.
class DocumentParser {
 public:
  /// text_field: the member of the JSON object that holds the text.
  explicit DocumentParser(std::string text_field);
  ~DocumentParser();
  DocumentParser(DocumentParser&&) noexcept;

  struct Result {
    bool good = false;
    std::string_view text;  // UTF-8, valid until the next call
    BadRecord reason{};     // where not good
  };
  /// A JSON object is good if its text field is, whatever the others hold.
  Result parse(TextFormat format, const TextReader::Record& record);

 private:
  Result parse_text_alone(std::string_view record);

  struct Json;
  std::string text_field_;
  std::unique_ptr<Json> json_;
};

}  // namespace vqlm
