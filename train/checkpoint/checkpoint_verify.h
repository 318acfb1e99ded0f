// Comparing a checkpoint's files with its manifest. HDF5 is not asked: it may crash on a damaged file.
#pragma once

#include <filesystem>
#include <string>

#include "train/checkpoint/manifest.h"

namespace vqlm {

/// What is wrong with the files number `share`, `share` + `shares`, ... of the manifest, empty where nothing is: one line
/// that names the first file that is missing or has another size or contents and, for a rank file, the tensors that
/// the damage is in.
std::string find_damage(const std::filesystem::path& folder, const Manifest& manifest, int share = 0, int shares = 1);

}  // namespace vqlm
