#include "data/tokenizer/tokenizer_files.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

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

namespace {

/// The hash that tokenizer_config.json gives for a tokenizer.json with this one; "" where it gives none.
std::string identity_given(const std::filesystem::path& folder, const std::string& sha256) {
  if (!is_file(folder / "tokenizer_config.json")) return "";
  const auto config = nlohmann::json::parse(read_file((folder / "tokenizer_config.json").string()), nullptr, false);
  if (!config.is_object() || !config.contains(tokenizer_identity_key)) return "";
  const nlohmann::json& given = config[tokenizer_identity_key];
  if (!given.is_object() || given.value("of", nlohmann::json()) != sha256) return "";
  const nlohmann::json is = given.value("is", nlohmann::json());
  return is.is_string() ? is.get<std::string>() : "";
}

}  // namespace

std::string tokenizer_identity(const std::filesystem::path& folder) {
  for (const char* whole : {"tokenizer.model", "tokenizer.json"}) {
    if (!is_file(folder / whole)) continue;
    const std::string sha256 = sha256_of_file((folder / whole).string());
    const std::string given = std::string_view(whole) == "tokenizer.json" ? identity_given(folder, sha256) : "";
    return given.empty() ? sha256 : given;
  }
  std::string bytes;
  for (const char* part : {"vocab.json", "merges.txt"}) {
    if (is_file(folder / part)) bytes += read_file((folder / part).string());
  }
  return bytes.empty() ? "" : sha256_of(bytes);
}

}  // namespace vqlm
