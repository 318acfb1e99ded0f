#include "data/tokenizer/tokenizer_files.h"

#include <algorithm>
#include <array>

#include "data/files/atomic_file.h"
#include "data/files/sha256.h"

namespace vqlm {

namespace {

constexpr std::array<std::string_view, 9> names = {
    "tokenizer.model", "tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt",      "added_tokens.json", "chat_template.jinja",   "generation_config.json"};

bool is_file(const std::filesystem::path& path) {
  std::error_code not_there;
  return std::filesystem::is_regular_file(path, not_there);
}

}  // namespace

std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  for (const std::string_view name : names) {
    if (is_file(folder / name)) found.push_back(folder / name);
  }
  return found;
}

bool is_tokenizer_file(std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string tokenizer_identity(const std::filesystem::path& folder) {
  for (const char* whole : {"tokenizer.model", "tokenizer.json"}) {
    if (is_file(folder / whole)) return sha256_of_file((folder / whole).string());
  }
  std::string bytes;
  for (const char* part : {"vocab.json", "merges.txt"}) {
    if (is_file(folder / part)) bytes += read_file((folder / part).string());
  }
  return bytes.empty() ? "" : sha256_of(bytes);
}

}  // namespace vqlm
