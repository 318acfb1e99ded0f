// Text files as a stream of records, in constant memory: JSON lines as C4 is published (one object a line) or
// plain text, each plain or compressed (data/files/byte_source.h), or a column of a Parquet file, whose rows are JSON lines here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/byte_source.h"

namespace vqlm {

enum class TextFormat { json_lines, plain_text };

/// Throws UsageError where `documents` is none of what --documents takes: "" (plain text is cut at blank lines, or where its
/// first MiB has a line "<|endoftext|>" at those), "file" (not at all), "paragraph" (at blank lines) or a line that separates
/// documents, white space around it left out.
void check_documents(const std::string& documents);
/// The same in words, for reports: "cut at blank lines".
std::string describe_documents(const std::string& documents);

class TextReader {
 public:
  /// A longer record is not kept (Record::too_long), so a file without line ends cannot fill the memory.
  static constexpr std::size_t default_max_record_bytes = std::size_t{64} << 20;

  /// The format is told by the name without .gz or .zst: .json, .jsonl and .ndjson are JSON lines, .txt and
  /// .text plain text; any other name is JSON lines where the first byte that is no white space is '{'.
  /// Parquet is told by its first bytes; text_field is its column. documents: where plain text is cut (check_documents).
  /// Throws Error like open_byte_source, and for a file that is of another known kind (data/files/foreign_file.h, tables by
  /// their names) or is plain text by its name and holds a NUL in its first MiB; UsageError for JSON lines and Parquet where
  /// `documents` says something.
  explicit TextReader(const std::string& path, std::size_t max_record_bytes = default_max_record_bytes,
                      const std::string& text_field = "text", const std::string& documents = "");

  /// JSON lines: one line that is not blank. Plain text: what lies between two cuts, as it is, without blank lines around it
  /// and the last line end. A UTF-8 byte order mark at the start of the file is dropped.
  struct Record {
    std::string_view bytes;  // valid until the next call
    std::uint64_t line = 0;  // of its first line, from 1
    bool too_long = false;   // more than max_record_bytes; bytes is empty then
  };
  /// False at the end of the file. Throws Error for a damaged file.
  bool next(Record& record);

  TextFormat format() const { return format_; }
  /// The line that separates documents has not come so far, though one was given.
  bool misses_separator() const { return cut_ == Cut::separator && !cut_seen_; }
  const std::string& path() const { return path_; }
  std::uint64_t file_bytes_read() const { return source_->file_bytes_read(); }

 private:
  struct Line {
    std::string_view bytes;  // without the line end
    bool too_long = false;
  };
  /// Of plain text, where documents end.
  enum class Cut { blank_lines, end_marks, separator, end_of_file };
  Cut cut_of(const std::string& documents, std::string_view head) const;
  bool is_cut(std::string_view line) const;
  bool next_line(Line& line);
  bool fill();
  bool next_block(Record& record);

  std::string path_;
  std::size_t max_record_bytes_;
  std::unique_ptr<ByteSource> source_;
  TextFormat format_ = TextFormat::json_lines;
  Cut cut_ = Cut::blank_lines;
  std::string separator_;
  bool cut_seen_ = false;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  // buffer_[begin_, end_) is read and not yet given out
  std::size_t end_ = 0;
  std::uint64_t line_ = 0;  // lines given out
  std::string block_;       // the plain text record last given out
};

}  // namespace vqlm
