#include "train/checkpoint/checkpoint_verify.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "train/checkpoint/hash.h"
#include "train/checkpoint/rank_file.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;

const Manifest::File* find(const Manifest& manifest, const std::string& name) {
  const auto file = std::find_if(manifest.files.begin(), manifest.files.end(),
                                 [&](const auto& candidate) { return candidate.name == name; });
  return file == manifest.files.end() ? nullptr : &*file;
}

/// "missing", "3 bytes instead of 5", "contents do not match the manifest's hash", or empty.
std::string damage_of_file(const fs::path& folder, const Manifest::File& file) {
  std::error_code failed;
  const auto bytes = fs::file_size(folder / file.name, failed);
  if (failed) return fmt::format("missing ({})", failed.message());
  if (bytes != file.bytes) return fmt::format("{} bytes instead of {}", bytes, file.bytes);
  if (xxh3_of_file(folder / file.name) == file.xxh3) return "";
  return "contents do not match the manifest's hash";
}

bool is_intact(const fs::path& path, const FileSlice& slice) {
  try {
    return xxh3_of_range(path, slice.first_byte, slice.bytes()) == slice.xxh3;
  } catch (const Error&) {
    return false;  // cut off
  }
}

/// ": damaged in model.norm.weight and 2 more tensors" for a rank file with an intact table; else empty.
std::string damaged_tensors(const fs::path& folder, const Manifest& manifest, const std::string& name) {
  if (!name.starts_with("rank-") || !name.ends_with(".h5")) return "";
  const Manifest::File* table_file = find(manifest, fs::path(name).replace_extension(".json").string());
  if (table_file == nullptr || !damage_of_file(folder, *table_file).empty()) {
    return ": which tensors are damaged cannot be told, for its table is damaged, too";
  }
  std::vector<std::string> tensors;
  for (const FileSlice& slice : read_rank_table(folder, table_file->name).slices) {
    if (is_intact(folder / name, slice)) continue;
    if (std::find(tensors.begin(), tensors.end(), slice.tensor) == tensors.end()) tensors.push_back(slice.tensor);
  }
  if (tensors.empty()) return ": damaged in what HDF5 keeps around the tensors";
  constexpr std::size_t most = 3;
  const std::vector<std::string> named(tensors.begin(),
                                       tensors.begin() + static_cast<std::ptrdiff_t>(std::min(most, tensors.size())));
  const std::string others = tensors.size() > most ? fmt::format(" and {} more", tensors.size() - most) : "";
  return fmt::format(": damaged in {}{}", fmt::join(named, ", "), others);
}

}  // namespace

std::string find_damage(const fs::path& folder, const Manifest& manifest, int share, int shares) {
  for (auto i = static_cast<std::size_t>(share); i < manifest.files.size(); i += static_cast<std::size_t>(shares)) {
    const Manifest::File& file = manifest.files[i];
    try {
      const std::string damage = damage_of_file(folder, file);
      if (damage.empty()) continue;
      return fmt::format("{}: {}{}", (folder / file.name).string(), damage,
                         damaged_tensors(folder, manifest, file.name));
    } catch (const Error& error) {
      return error.what();  // unreadable
    }
  }
  return "";
}

}  // namespace vqlm
