#include "train/checkpoint/manifest.h"

#include <spdlog/fmt/fmt.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/atomic_file.h"

namespace vqlm {
namespace {

constexpr const char* manifest_name = "manifest.json";
constexpr const char* manifest_format = "vqlm-checkpoint";
constexpr int manifest_version = 1;

/// The counts stand in no hashed file, so a damaged digit would move the run unseen without a hash of their own.
std::string hash_of_counts(const TrainState& state) {
  const std::string text = fmt::format("{} {} {}", state.step, state.samples, state.tokens);
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

}  // namespace

std::string hash_of_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  VQLM_ASSERT(state && XXH3_64bits_reset(state.get()) == XXH_OK);
  std::vector<char> block(std::size_t{1} << 20);
  while (in) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    VQLM_ASSERT(XXH3_64bits_update(state.get(), block.data(), static_cast<std::size_t>(in.gcount())) ==
                XXH_OK);
  }
  if (!in.eof()) throw Error(fmt::format("{}: reading failed: {}", path.string(), std::strerror(errno)));
  return fmt::format("{:016x}", XXH3_64bits_digest(state.get()));
}

void write_manifest(const std::filesystem::path& folder, const TrainState& state) {
  nlohmann::ordered_json json;
  json["format"] = manifest_format;
  json["version"] = manifest_version;
  json["step"] = state.step;
  json["samples"] = state.samples;
  json["tokens"] = state.tokens;
  json["counts_xxh3"] = hash_of_counts(state);
  std::vector<std::filesystem::path> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) names.push_back(entry.path());
  }
  std::sort(names.begin(), names.end());
  json["files"] = nlohmann::ordered_json::array();
  for (const auto& path : names) {
    json["files"].push_back({{"name", path.filename().string()},
                             {"bytes", std::filesystem::file_size(path)},
                             {"xxh3", hash_of_file(path)}});
    sync_to_disk(path.string());
  }
  write_file_atomically((folder / manifest_name).string(), json.dump(1) + '\n');
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / manifest_name;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    throw Error(
        fmt::format("{}: no readable manifest.json, so this is not a complete checkpoint; name a folder "
                    "such as runs/a/checkpoints/step-00001000",
                    folder.string()));
  }
  try {
    const nlohmann::json json = nlohmann::json::parse(in);
    if (json.at("format") != manifest_format || json.at("version") != manifest_version) {
      throw Error(fmt::format("{}: format {} version {} is not {} version {}; use the vqlm that wrote it",
                              path.string(), json.at("format").dump(), json.at("version").dump(),
                              manifest_format, manifest_version));
    }
    Manifest manifest;
    manifest.state = {json.at("step").get<std::int64_t>(), json.at("samples").get<std::int64_t>(),
                      json.at("tokens").get<std::int64_t>()};
    if (json.at("counts_xxh3").get<std::string>() != hash_of_counts(manifest.state)) {
      throw Error(
          fmt::format("{}: its step, samples and tokens do not match their hash; remove this folder, and the "
                      "checkpoint before it is the newest",
                      path.string()));
    }
    for (const auto& file : json.at("files")) {
      manifest.files.push_back({file.at("name").get<std::string>(), file.at("bytes").get<std::uint64_t>(),
                                file.at("xxh3").get<std::string>()});
    }
    return manifest;
  } catch (const nlohmann::json::exception& e) {
    throw Error(
        fmt::format("{}: damaged ({}); remove this folder, and the checkpoint before it is the newest",
                    path.string(), e.what()));
  }
}

void verify_manifest(const std::filesystem::path& folder, const Manifest& manifest) {
  for (const Manifest::File& file : manifest.files) {
    const std::filesystem::path path = folder / file.name;
    std::error_code failed;
    const auto bytes = std::filesystem::file_size(path, failed);
    if (failed) {
      throw Error(
          fmt::format("{}: missing ({}); remove this folder, and the checkpoint before it is the newest",
                      path.string(), failed.message()));
    }
    if (bytes != file.bytes) {
      throw Error(fmt::format(
          "{}: {} bytes instead of {}; remove this folder, and the checkpoint before it is the newest",
          path.string(), bytes, file.bytes));
    }
    if (hash_of_file(path) != file.xxh3) {
      throw Error(
          fmt::format("{}: contents do not match the manifest's hash; remove this folder, and the checkpoint "
                      "before it is the newest",
                      path.string()));
    }
  }
}

}  // namespace vqlm
