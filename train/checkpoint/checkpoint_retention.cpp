#include "train/checkpoint/checkpoint_retention.h"

#include <algorithm>
#include <vector>

#include "core/log.h"
#include "data/files/atomic_file.h"
#include "train/checkpoint/checkpoint_reader.h"

namespace vqlm {

namespace fs = std::filesystem;

void remove_folder(const fs::path& path) {
  std::error_code failed;
  fs::remove_all(path, failed);
  if (failed) log::warn("{}: cannot be removed: {}; remove it yourself", path.string(), failed.message());
}

void remove_unfinished(const fs::path& folder) {
  std::error_code failed;
  std::vector<fs::path> unfinished;
  for (auto entry = fs::directory_iterator(folder, failed); !failed && entry != fs::directory_iterator();
       entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("step-") && name.find(partial_suffix) != std::string::npos)
      unfinished.push_back(entry->path());
  }
  for (const fs::path& path : unfinished) remove_folder(path);
}

void remove_old(const fs::path& folder, const Retention& retention, std::int64_t newest) {
  if (retention.keep == 0) return;
  std::vector<ListedCheckpoint> all = list_checkpoints(folder);
  std::erase_if(all, [&](const ListedCheckpoint& c) { return c.step > newest; });
  const auto kept = std::min(all.size(), static_cast<std::size_t>(retention.keep));
  all.resize(all.size() - kept);
  for (const ListedCheckpoint& checkpoint : all) {
    if (retention.keep_every > 0 && checkpoint.step % retention.keep_every == 0) continue;
    remove_folder(checkpoint.path);
  }
}

}  // namespace vqlm
