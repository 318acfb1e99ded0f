#include "train/tools/convert/output_folder.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"

namespace vqlm {

void refuse_existing(const std::filesystem::path& out) {
  std::error_code unknown;
  if (!std::filesystem::exists(out, unknown)) return;
  if (std::filesystem::is_directory(out, unknown) && std::filesystem::is_empty(out, unknown)) return;
  throw UsageError(fmt::format("--out {}: is there already; remove it, or choose another name", out.string()));
}

OutputFolder::OutputFolder(const std::filesystem::path& out) : out_(out.lexically_normal()) {
  if (!out_.has_filename()) out_ = out_.parent_path();  // "models/a/"
  refuse_existing(out_);
  partial_ = out_.string() + std::string(partial_suffix);
  std::error_code failed;
  std::filesystem::remove_all(partial_, failed);  // of a conversion that was killed
  if (!failed) std::filesystem::create_directories(partial_, failed);
  if (failed) throw Error(fmt::format("{}: cannot be made: {}", partial_.string(), failed.message()));
}

OutputFolder::~OutputFolder() {
  if (published_) return;
  std::error_code failed;
  std::filesystem::remove_all(partial_, failed);
  if (failed) log::error("{}: cannot be removed: {}", partial_.string(), failed.message());
}

void OutputFolder::publish() {
  sync_to_disk(partial_.string());
  std::error_code failed;
  std::filesystem::remove(out_, failed);  // an empty folder of that name; one that filled meanwhile stays
  if (!failed) std::filesystem::rename(partial_, out_, failed);
  if (failed) throw Error(fmt::format("{}: cannot be named so: {}", out_.string(), failed.message()));
  published_ = true;
  const std::filesystem::path parent = out_.parent_path();
  sync_to_disk(parent.empty() ? "." : parent.string());
}

}  // namespace vqlm
