#include "data/prepare/text_reader.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "data/files/foreign_file.h"
#include "data/files/parquet_source.h"

namespace vqlm {

namespace {

constexpr std::size_t first_buffer_bytes = std::size_t{1} << 20;
constexpr std::string_view white_space = " \t\r\n\v\f";

bool is_blank(std::string_view line) {
  return line.find_first_not_of(white_space) == std::string_view::npos;
}

/// A line that says where a document ends, as in TinyStories' files; never text.
constexpr std::string_view end_mark = "<|endoftext|>";

std::string_view trimmed(std::string_view line) {
  const std::size_t begin = line.find_first_not_of(white_space);
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(white_space) + 1 - begin);
}

bool is_end_mark(std::string_view line) {
  return trimmed(line) == end_mark;
}

bool has_end_mark(std::string_view text) {
  for (std::size_t end = 0; !text.empty(); text.remove_prefix(std::min(end + 1, text.size()))) {
    end = std::min(text.find('\n'), text.size());
    if (is_end_mark(text.substr(0, end))) return true;
  }
  return false;
}

std::string extension_of_text(const std::string& path) {
  std::filesystem::path name = std::filesystem::path(path).filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  return name.extension();
}

TextFormat format_of(const std::string& path, std::string_view head) {
  const std::string extension = extension_of_text(path);
  if (extension == ".json" || extension == ".jsonl" || extension == ".ndjson") return TextFormat::json_lines;
  if (extension == ".txt" || extension == ".text") return TextFormat::plain_text;
  const std::size_t first = head.find_first_not_of(white_space);
  return first != std::string_view::npos && head[first] == '{' ? TextFormat::json_lines : TextFormat::plain_text;
}

/// Text all over, so no first byte tells it: half of each line would be numbers, and quoted line ends would cut rows.
void refuse_table(const std::string& path) {
  const std::string extension = extension_of_text(path);
  if (extension != ".csv" && extension != ".tsv") return;
  throw Error(
      fmt::format("{}: is a table ({}), not text; write its text column as JSON lines or Parquet "
                  "(pandas: read_csv(...).to_json(..., lines=True, orient=\"records\")), or, should it be plain text, "
                  "call it .txt",
                  path, extension));
}

}  // namespace

void check_documents(const std::string& documents) {
  if (documents.empty()) return;
  if (trimmed(documents).empty() || documents.find('\n') != std::string::npos)
    throw UsageError(fmt::format("--documents \"{}\": give file, paragraph, or a line that separates documents",
                                 documents.find('\n') != std::string::npos ? "(several lines)" : documents));
}

std::string describe_documents(const std::string& documents) {
  if (documents.empty()) return fmt::format("cut at blank lines, or at lines {} where a file has them", end_mark);
  if (documents == "file") return "a document a file";
  if (documents == "paragraph") return "cut at blank lines";
  return fmt::format("cut at lines \"{}\"", trimmed(documents));
}

TextReader::TextReader(const std::string& path, std::size_t max_record_bytes, const std::string& text_field,
                       const std::string& documents)
    : path_(path),
      max_record_bytes_(max_record_bytes),
      source_(is_parquet(path) ? open_parquet(path, text_field) : open_byte_source(path)),
      buffer_(std::min(first_buffer_bytes, 2 * max_record_bytes + 2)) {
  while (end_ < buffer_.size() && fill()) {
  }
  const std::string_view head(buffer_.data(), end_);
  if (const std::string kind = foreign_kind(head); !kind.empty()) throw Error(fmt::format("{}: is {}", path, kind));
  refuse_table(path);
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (head.starts_with(byte_order_mark)) begin_ = byte_order_mark.size();
  format_ = is_parquet(path) ? TextFormat::json_lines : format_of(path, head.substr(begin_));
  if (const std::size_t nul = head.find('\0'); format_ == TextFormat::plain_text && nul != std::string_view::npos) {
    throw Error(fmt::format(
        "{}: is no plain text: it has a NUL at byte {} of its text; give text in UTF-8, or ids as --from-tokens", path,
        nul));
  }
  if (format_ == TextFormat::plain_text) {
    cut_ = cut_of(documents, head);
    separator_ = trimmed(documents);
  } else if (!documents.empty()) {
    throw UsageError(
        fmt::format("--documents {}: is for plain text, and {} is {}; leave the option out, or prepare plain text "
                    "in a folder of its own",
                    documents, path, is_parquet(path) ? "Parquet, a document a row" : "JSON lines, a document a line"));
  }
}

TextReader::Cut TextReader::cut_of(const std::string& documents, std::string_view head) const {
  if (documents.empty()) return has_end_mark(head) ? Cut::end_marks : Cut::blank_lines;
  if (documents == "file") return Cut::end_of_file;
  return documents == "paragraph" ? Cut::blank_lines : Cut::separator;
}

bool TextReader::is_cut(std::string_view line) const {
  switch (cut_) {
    case Cut::blank_lines:
      return is_blank(line) || is_end_mark(line);
    case Cut::end_marks:
      return is_end_mark(line);
    case Cut::separator:
      return trimmed(line) == separator_;
    case Cut::end_of_file:
      return false;
  }
  return false;
}

/// Reads more behind what is left over, in a buffer twice as large where a line fills it; false at the end.
bool TextReader::fill() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  const std::size_t n = source_->read(std::span<char>(buffer_).subspan(end_));
  end_ += n;
  return n > 0;
}

bool TextReader::next_line(Line& line) {
  line = Line{};
  std::size_t searched = 0;  // bytes from begin_ on that hold no line end
  for (;;) {
    const char* start = buffer_.data() + begin_;
    const void* found = std::memchr(start + searched, '\n', end_ - begin_ - searched);
    if (found != nullptr) {
      const auto length = static_cast<std::size_t>(static_cast<const char*>(found) - start);
      line.too_long = line.too_long || length > max_record_bytes_;
      if (!line.too_long) line.bytes = {start, length};
      begin_ += length + 1;
      break;
    }
    searched = end_ - begin_;
    if (searched > max_record_bytes_) {  // give up on this line's contents, look for its end only
      line.too_long = true;
      begin_ = end_;
      searched = 0;
    }
    if (fill()) continue;
    if (end_ == begin_ && !line.too_long) return false;
    if (!line.too_long) line.bytes = {buffer_.data() + begin_, end_ - begin_};
    begin_ = end_;
    break;
  }
  ++line_;
  if (line.bytes.ends_with('\r')) line.bytes.remove_suffix(1);
  return true;
}

bool TextReader::next_block(Record& record) {
  block_.clear();
  record = Record{};
  Line line;
  std::string blank_lines;  // inside the block, if it goes on behind them
  while (next_line(line)) {
    const bool cut = !line.too_long && is_cut(line.bytes);
    cut_seen_ = cut_seen_ || cut;
    if (cut || (!line.too_long && is_blank(line.bytes))) {
      if (record.line == 0) continue;
      if (cut) break;
      if (blank_lines.size() <= max_record_bytes_) blank_lines.append(1, '\n').append(line.bytes);
      continue;
    }
    if (record.line == 0) {
      record.line = line_;
    } else {
      block_.append(blank_lines) += '\n';
    }
    blank_lines.clear();
    block_ += line.bytes;
    record.too_long = record.too_long || line.too_long || block_.size() > max_record_bytes_;
    if (record.too_long) block_.clear();
  }
  if (!record.too_long) record.bytes = block_;
  return record.line != 0;
}

bool TextReader::next(Record& record) {
  if (format_ == TextFormat::plain_text) return next_block(record);
  Line line;
  while (next_line(line)) {
    if (!line.too_long && is_blank(line.bytes)) continue;
    record = {line.bytes, line_, line.too_long};
    return true;
  }
  return false;
}

}  // namespace vqlm
