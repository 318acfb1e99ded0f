#include "train/checkpoint/checkpoint_folder.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "data/files/atomic_file.h"

namespace vqlm {

namespace fs = std::filesystem;

std::string checkpoint_name(std::int64_t step) {
  return fmt::format("step-{:08d}", step);
}

fs::path partial_path(const fs::path& checkpoint) {
  return checkpoint.string() + std::string(partial_suffix);
}

void complete_checkpoint(const fs::path& folder, int ranks, const CheckpointDescription& description) {
  std::vector<RankTable> tables;
  std::vector<Manifest::File> hashed;
  for (int rank = 0; rank < ranks; ++rank) {
    tables.push_back(read_rank_table(folder, rank_table_name(rank)));
    const RankTable& table = tables.back();
    hashed.push_back({table.file, table.bytes, table.xxh3});
  }
  write_virtual_file(folder, tables, description.extras);
  write_file_atomically((folder / "config.toml").string(), description.config);
  for (const fs::path& file : description.tokenizer) {
    std::error_code failed;
    fs::copy_file(file, folder / file.filename(), failed);
    if (failed) {
      throw Error(fmt::format("{}: cannot be copied to {}: {}", file.string(), folder.string(), failed.message()));
    }
  }
  write_manifest(folder, description.state, hashed);
}

void publish_checkpoint(const fs::path& partial, const fs::path& checkpoint) {
  // An earlier checkpoint of the same step makes way only while the complete new one waits beside it.
  const fs::path replaced = partial_path(checkpoint).string() + ".old";
  try {
    if (fs::exists(checkpoint)) fs::rename(checkpoint, replaced);
    fs::rename(partial, checkpoint);
    fs::remove_all(replaced);
  } catch (const fs::filesystem_error& e) {
    throw Error(
        fmt::format("{}: cannot be renamed to {}: {}", partial.string(), checkpoint.string(), e.code().message()));
  }
  const fs::path parent = checkpoint.parent_path();
  sync_to_disk(parent.empty() ? "." : parent.string());
}

}  // namespace vqlm
