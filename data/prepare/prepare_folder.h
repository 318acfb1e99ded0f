// The folder that shards are written to: locked, free of what a crash left, and found to fit the inputs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/prepare/prepare_manifest.h"

namespace vqlm {

/// One input file of a run.
struct PrepareInput {
  std::string path;
  std::uint64_t bytes = 0;
  Split split{};
};

/// All files that match, in the order given and by name within a pattern. Throws Error for a pattern without match, a
/// folder, a file given twice.
std::vector<PrepareInput> find_inputs(const std::vector<std::string>& patterns,
                                      const std::vector<std::string>& heldout_patterns);

class PrepareFolder {
 public:
  /// Makes the folder where it is missing, locks it and removes partial files. Throws Error where it cannot be written or
  /// another process holds the lock.
  explicit PrepareFolder(std::string path);
  PrepareFolder(const PrepareFolder&) = delete;
  PrepareFolder& operator=(const PrepareFolder&) = delete;
  ~PrepareFolder();

  std::string file(const std::string& name) const;
  /// Names of the shards in the folder.
  std::vector<std::string> shards() const;
  /// Removes shards, prepare.json and the tokenizer's files.
  void clear();
  /// Removes shards that the manifest does not list: a run was stopped between writing them and saying so.
  void remove_unlisted(const PrepareManifest& manifest);

 private:
  std::string path_;
  int lock_ = -1;
};

/// Throws Error where the folder's manifest belongs to other inputs than these, or to the same ones in another order; new
/// ones at the end are welcome.
void check_sources(const PrepareManifest& manifest, const std::vector<PrepareInput>& inputs, const std::string& folder);

/// True where the part's shards are there, whole, and made from `source` with this tokenizer and end of text; otherwise says in the log
/// what is wrong.
bool part_is_finished(const Part& part, const SourceFile& source, const ShardMeta& expected,
                      const PrepareFolder& folder);

}  // namespace vqlm
