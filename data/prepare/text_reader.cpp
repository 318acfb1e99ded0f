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
bool is_end_mark(std::string_view line) {
  const std::size_t begin = line.find_first_not_of(white_space);
  if (begin == std::string_view::npos) return false;
  return line.substr(begin, line.find_last_not_of(white_space) + 1 - begin) == "<|endoftext|>";
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

}  // namespace

TextReader::TextReader(const std::string& path, std::size_t max_record_bytes, const std::string& text_field)
    : path_(path),
      max_record_bytes_(max_record_bytes),
      source_(is_parquet(path) ? open_parquet(path, text_field) : open_byte_source(path)),
      buffer_(std::min(first_buffer_bytes, 2 * max_record_bytes + 2)) {
  while (end_ < buffer_.size() && fill()) {
  }
  const std::string_view head(buffer_.data(), end_);
  if (const std::string kind = foreign_kind(head); !kind.empty()) throw Error(fmt::format("{}: is {}", path, kind));
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (head.starts_with(byte_order_mark)) begin_ = byte_order_mark.size();
  format_ = is_parquet(path) ? TextFormat::json_lines : format_of(path, head.substr(begin_));
  if (const std::size_t nul = head.find('\0'); format_ == TextFormat::plain_text && nul != std::string_view::npos) {
    throw Error(fmt::format(
        "{}: is no plain text: it has a NUL at byte {} of its text; give text in UTF-8, or ids as --from-tokens", path,
        nul));
  }
  has_end_marks_ = format_ == TextFormat::plain_text && has_end_mark(head);
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
    const bool blank = !line.too_long && is_blank(line.bytes);
    if (blank || is_end_mark(line.bytes)) {
      if (record.line == 0) continue;
      if (!blank || !has_end_marks_) break;
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
