#include "data/files/foreign_file.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>

#include "core/error.h"

namespace vqlm {

namespace {

using namespace std::string_view_literals;

struct Kind {
  std::size_t offset;
  std::string_view magic;
  std::string_view what;
  std::string_view way_out;
};

constexpr auto as_json_lines =
    "write its text column as JSON lines (pandas: to_json(lines=True, orient=\"records\"))"sv;
constexpr auto unpack = "unpack it and give the files in it"sv;
constexpr auto unpack_once = "unpack it, or pack it with gzip or Zstandard"sv;
constexpr auto to_utf8 = "convert it to UTF-8 (iconv -t UTF-8)"sv;

constexpr Kind kinds[] = {
    {0, "version https://git-lfs.github.com/spec/"sv, "a Git LFS pointer in place of the file",
     "fetch it: git lfs pull"},
    {0, "PAR1"sv, "a Parquet file", as_json_lines},
    {0, "ARROW1\0\0"sv, "an Arrow (Feather) file", as_json_lines},
    {0, "FEA1"sv, "a Feather file", as_json_lines},
    {0, "\xff\xff\xff\xff"sv, "an Arrow stream", as_json_lines},
    {257, "ustar"sv, "a tar archive", unpack},
    {0, "PK\x03\x04"sv, "a zip archive", unpack},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive", unpack},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "an xz file", unpack_once},
    {4, "1AY&SY"sv, "a bzip2 file", unpack_once},
    {0, "\x04\x22\x4d\x18"sv, "an LZ4 file", unpack_once},
    {0, "\x1f\x8b"sv, "compressed twice", "unpack it once"},
    {0, "\x28\xb5\x2f\xfd"sv, "compressed twice", "unpack it once"},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file", "shards need no preparing; write other text as JSON lines"},
    {0, "\x93NUMPY"sv, "a NumPy array", "give ids as --from-tokens"},
    {0, "%PDF-"sv, "a PDF file", "give its text"},
    {0, "\xff\xfe\0\0"sv, "text in UTF-32", to_utf8},
    {0, "\0\0\xfe\xff"sv, "text in UTF-32", to_utf8},
    {0, "\xff\xfe"sv, "text in UTF-16", to_utf8},
    {0, "\xfe\xff"sv, "text in UTF-16", to_utf8},
};

/// Lines of a token in base64 and its rank, which count from 0: "IQ== 0".
bool is_tiktoken(std::string_view head) {
  constexpr std::size_t lines = 5;
  for (std::size_t rank = 0; rank < lines; ++rank) {
    const std::size_t end = head.find('\n');
    const std::size_t space = head.find(' ');
    if (end == std::string_view::npos || space == 0 || space % 4 != 0 || space > end) return false;
    const auto in_base64 = [](unsigned char c) { return std::isalnum(c) != 0 || c == '+' || c == '/' || c == '='; };
    if (!std::all_of(head.begin(), head.begin() + static_cast<std::ptrdiff_t>(space), in_base64)) return false;
    if (head.substr(space + 1, end - space - 1) != std::to_string(rank)) return false;
    head.remove_prefix(end + 1);
  }
  return true;
}

}  // namespace

std::string foreign_kind(std::string_view head) {
  for (const Kind& kind : kinds) {
    if (head.size() >= kind.offset && head.substr(kind.offset).starts_with(kind.magic)) {
      return fmt::format("{}; {}", kind.what, kind.way_out);
    }
  }
  if (!is_tiktoken(head)) return "";
  return "a tiktoken tokenizer, which vqlm does not read; make ids with it and give them as --from-tokens";
}

void refuse_foreign_file(const std::string& path) {
  std::array<char, foreign_head_bytes> head{};
  std::ifstream file(path, std::ios::binary);
  file.read(head.data(), head.size());
  const std::string kind = foreign_kind({head.data(), static_cast<std::size_t>(file.gcount())});
  if (!kind.empty()) throw Error(fmt::format("{}: is {}", path, kind));
}

}  // namespace vqlm
