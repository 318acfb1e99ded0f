#include "train/checkpoint/manifest.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/json_number.h"
#include "train/checkpoint/hash.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* manifest_name = "manifest.json";
constexpr const char* manifest_format = "vqlm-checkpoint";
// 1 (until November 2026) had its slices' tables inside the rank files and no hash of the whole manifest.
constexpr int manifest_version = 2;
/// Stands before the last member's value; the hash is of all bytes before this.
constexpr const char* hash_marker = ",\n \"manifest_xxh3\": ";

std::vector<fs::path> regular_files(const fs::path& folder) {
  std::error_code failed;
  std::vector<fs::path> files;
  for (auto entry = fs::directory_iterator(folder, failed); !failed && entry != fs::directory_iterator();
       entry.increment(failed)) {
    if (entry->is_regular_file()) files.push_back(entry->path());
  }
  if (failed) throw Error(fmt::format("{}: cannot be listed: {}", folder.string(), failed.message()));
  std::sort(files.begin(), files.end());
  return files;
}

Error damaged(const std::string& path, const std::string& what) {
  return Error(fmt::format("{}: {}; remove this folder, and the checkpoint before it is the newest", path, what));
}

/// Throws where the manifest's bytes are not those that its last member vouches for.
void check_own_hash(const std::string& path, const std::string& text, const nlohmann::json& json) {
  const std::size_t end = text.rfind(hash_marker);
  if (end == std::string::npos || json.at("manifest_xxh3") != xxh3_of(text.data(), end)) {
    throw damaged(path, "does not match its own hash");
  }
}

}  // namespace

void write_manifest(const fs::path& folder, const TrainState& state, const std::vector<Manifest::File>& known) {
  nlohmann::ordered_json json;
  json["format"] = manifest_format;
  json["version"] = manifest_version;
  json["step"] = state.step;
  json["samples"] = state.samples;
  json["tokens"] = state.tokens;
  json["files"] = nlohmann::ordered_json::array();
  for (const fs::path& path : regular_files(folder)) {
    const std::string name = path.filename().string();
    const auto hashed = std::find_if(known.begin(), known.end(), [&](const auto& file) { return file.name == name; });
    Manifest::File file;
    if (hashed != known.end()) {
      file = *hashed;
    } else {
      file = {name, fs::file_size(path), xxh3_of_file(path)};
      sync_to_disk(path.string());
    }
    json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.xxh3}});
  }
  std::string text = json.dump(1);
  text.resize(text.rfind('\n'));  // without the brace that ends it
  text += fmt::format("{}\"{}\"\n}}\n", hash_marker, xxh3_of(text.data(), text.size()));
  write_file_atomically((folder / manifest_name).string(), text);
}

Manifest read_manifest(const fs::path& folder) {
  const std::string path = (folder / manifest_name).string();
  if (std::error_code unknown; !fs::is_regular_file(path, unknown)) {
    throw Error(
        fmt::format("{}: no readable manifest.json, so this is not a complete checkpoint; name a folder "
                    "such as runs/a/checkpoints/step-00001000",
                    folder.string()));
  }
  const std::string text = read_file(path);
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (json.at("format") != manifest_format || json.at("version") != manifest_version) {
      throw Error(fmt::format("{}: format {} version {} is not {} version {}; use the vqlm that wrote it", path,
                              json.at("format").dump(), json.at("version").dump(), manifest_format, manifest_version));
    }
    check_own_hash(path, text, json);
    Manifest manifest;
    manifest.state = {whole_number<std::int64_t>(json.at("step")), whole_number<std::int64_t>(json.at("samples")),
                      whole_number<std::int64_t>(json.at("tokens"))};
    for (const auto& file : json.at("files")) {
      manifest.files.push_back({file.at("name").get<std::string>(), whole_number<std::uint64_t>(file.at("bytes")),
                                file.at("xxh3").get<std::string>()});
    }
    return manifest;
  } catch (const nlohmann::json::exception& e) {
    throw damaged(path, fmt::format("damaged ({})", e.what()));
  } catch (const NotWholeNumber& e) {
    throw damaged(path, fmt::format("damaged ({})", e.what()));
  }
}

}  // namespace vqlm
