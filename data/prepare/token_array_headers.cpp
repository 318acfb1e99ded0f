// Headers of token arrays (token_arrays.h): NumPy and llm.c. Megatron-LM's stands in megatron_index.cpp.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/error.h"
#include "data/files/little_endian.h"
#include "data/prepare/token_arrays.h"

namespace vqlm {

namespace {

constexpr const char* save_again = "save it as numpy.save(\"ids.npy\", ids.reshape(-1).astype(\"<u4\"))";

/// Makes a file's bytes fit for messages: they may end a line or change a terminal's colours.
std::string printable(std::string_view text) {
  std::string out(text);
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

/// Throws unless `array` fills the file to its last byte.
void check_size(const TokenArray& array, std::uint64_t file_bytes, const std::string& name) {
  const std::uint64_t rest = file_bytes - array.offset;
  const auto width = static_cast<std::uint64_t>(array.width);
  if (array.count <= rest / width && array.count * width == rest) return;
  throw Error(
      fmt::format("{}: its header tells {} ids of {} bytes, but {} bytes follow; it is cut off or damaged: "
                  "write it again",
                  name, array.count, array.width, rest));
}

/// Reads the Python literal that describes an array: {'descr': '<u2', 'fortran_order': False, 'shape': (1000,), }
class NpyDictionary {
 public:
  NpyDictionary(std::string_view text, const std::string& name) : rest_(text), name_(name) {}

  TokenArray read() {
    TokenArray array;
    bool descr = false, order = false, shape = false;
    expect("{");
    while (!accept("}")) {
      const std::string_view key = quoted();
      expect(":");
      bool& seen = key == "descr" ? descr : key == "fortran_order" ? order : shape;
      if ((&seen == &shape && key != "shape") || seen) damaged();
      seen = true;
      if (&seen == &descr) {
        read_type(array);
      } else if (&seen == &order) {
        if (!accept("True")) expect("False");  // the same for one axis
      } else {
        array.count = read_shape();
      }
      if (!accept(",")) {
        expect("}");
        break;
      }
    }
    skip_spaces();
    if (!rest_.empty() || !descr || !order || !shape) damaged();
    return array;
  }

 private:
  [[noreturn]] void damaged() const {
    throw Error(fmt::format("{}: the header of a NumPy array is damaged; write the file again", name_));
  }
  void skip_spaces() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size())); }
  bool accept(std::string_view word) {
    skip_spaces();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void expect(std::string_view word) {
    if (!accept(word)) damaged();
  }
  std::string_view quoted() {
    const char quote = accept("'") ? '\'' : accept("\"") ? '"' : '\0';
    const std::size_t end = quote == '\0' ? rest_.npos : rest_.find(quote);
    if (end == rest_.npos) damaged();
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return word;
  }

  void read_type(TokenArray& array) {
    if (accept("[")) {
      throw Error(fmt::format("{}: holds records with fields, not token ids; {}", name_, save_again));
    }
    const std::string_view type = quoted();
    const bool one_byte = type == "|u1" || type == "|i1";
    const bool wider = type.size() == 3 && type[0] == '<' && (type[1] == 'u' || type[1] == 'i') &&
                       (type[2] == '2' || type[2] == '4' || type[2] == '8');
    if (!one_byte && !wider) {
      throw Error(
          fmt::format("{}: holds elements of NumPy type '{:.32}'; ids are little-endian integers (such as "
                      "'<u2' or '<i4'): {}",
                      name_, printable(type), save_again));
    }
    array.width = type[2] - '0';
    array.is_signed = type[1] == 'i';
  }

  std::uint64_t read_shape() {
    expect("(");
    skip_spaces();
    std::uint64_t count = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), count);
    if (error == std::errc() && end != rest_.data()) {
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      if (accept(",") && accept(")")) return count;
    }
    throw Error(fmt::format("{}: is not an array of one axis; {}", name_, save_again));
  }

  std::string_view rest_;
  const std::string& name_;
};

}  // namespace

TokenArray parse_npy_header(std::string_view head, std::uint64_t file_bytes, const std::string& name) {
  constexpr std::string_view magic = "\x93NUMPY";
  const auto cut_off = [&] {
    return Error(fmt::format("{}: ends within the header of a NumPy array; it is cut off: write it again", name));
  };
  if (!head.starts_with(magic) || head.size() < 10) throw cut_off();
  const int version = static_cast<unsigned char>(head[6]);
  if (version < 1 || version > 3) {
    throw Error(fmt::format("{}: has NumPy format version {}; 1 to 3 can be read: {}", name, version, save_again));
  }
  const std::size_t begin = version == 1 ? 10 : 12;
  if (head.size() < begin) throw cut_off();
  const std::uint64_t length = version == 1 ? load_little<std::uint16_t>(head, 8) : load_little<std::uint32_t>(head, 8);
  if (length > max_token_header_bytes - begin) {
    throw Error(fmt::format("{}: has a NumPy header of {} bytes; an array of one axis needs 118: {}", name, length,
                            save_again));
  }
  if (length > head.size() - begin) throw cut_off();
  TokenArray array = NpyDictionary(head.substr(begin, length), name).read();
  array.offset = begin + length;
  check_size(array, file_bytes, name);
  return array;
}

TokenArray parse_llmc_header(std::string_view head, std::uint64_t file_bytes, const std::string& name) {
  constexpr std::size_t header_bytes = 256 * sizeof(std::int32_t);
  if (head.size() < header_bytes) {
    throw Error(fmt::format("{}: ends within the 1024 bytes of llm.c's header; it is cut off: write it again", name));
  }
  const auto word = [&](std::size_t i) { return load_little<std::int32_t>(head, i * sizeof(std::int32_t)); };
  const bool narrow = word(0) == llmc_magic_u16;
  const int version = narrow ? 1 : 7;
  if ((!narrow && word(0) != llmc_magic_u32) || word(1) != version) {
    throw Error(
        fmt::format("{}: has llm.c's magic {} with version {}; {} with 1 and {} with 7 can be read: write it "
                    "with llm.c's write_datafile()",
                    name, word(0), word(1), llmc_magic_u16, llmc_magic_u32));
  }
  if (word(2) < 0) {
    throw Error(fmt::format("{}: its header tells {} ids; more than 2^31 - 1 do not fit llm.c's header: {}", name,
                            word(2), save_again));
  }
  const TokenArray array{header_bytes, static_cast<std::uint64_t>(word(2)), narrow ? 2 : 4, false};
  check_size(array, file_bytes, name);
  return array;
}

TokenArray raw_token_array(std::string_view head, std::uint64_t file_bytes, const std::string& dtype,
                           const std::string& name) {
  constexpr std::pair<std::string_view, TokenArray> types[] = {
      {"uint8", {0, 0, 1, false}},  {"uint16", {0, 0, 2, false}}, {"uint32", {0, 0, 4, false}},
      {"uint64", {0, 0, 8, false}}, {"int16", {0, 0, 2, true}},   {"int32", {0, 0, 4, true}},
      {"int64", {0, 0, 8, true}}};
  const auto* const type = std::ranges::find(types, dtype, &std::pair<std::string_view, TokenArray>::first);
  if (type == std::end(types)) {
    throw UsageError(
        fmt::format("--dtype {}: choose one of uint8, uint16, uint32, uint64, int16, int32, int64", dtype));
  }
  const std::int32_t first = head.size() < sizeof(std::int32_t) ? 0 : load_little<std::int32_t>(head, 0);
  if (head.starts_with("\x93NUMPY") || first == llmc_magic_u16 || first == llmc_magic_u32) {
    throw Error(fmt::format("{}: begins with a header, which tells the type of its ids; leave --dtype out", name));
  }
  TokenArray array = type->second;
  array.count = file_bytes / static_cast<std::uint64_t>(array.width);
  if (array.count * static_cast<std::uint64_t>(array.width) != file_bytes) {
    throw Error(fmt::format("{}: {} bytes are no whole number of {} ids; it is cut off, or of another --dtype", name,
                            file_bytes, dtype));
  }
  return array;
}

}  // namespace vqlm
