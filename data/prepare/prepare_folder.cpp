#include "data/prepare/prepare_folder.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/input_paths.h"
#include "data/shards/token_shards.h"
#include "data/tokenizer/tokenizer_files.h"

namespace vqlm {

namespace {

namespace fs = std::filesystem;

constexpr const char* other_ways = "choose another --out, or --force to make the shards afresh";

bool is_shard_name(std::string_view name) {
  return (name.starts_with("train-") || name.starts_with("heldout-")) && name.ends_with(".h5");
}

bool is_own_partial(std::string_view name) {
  if (!name.ends_with(partial_suffix)) return false;
  name.remove_suffix(partial_suffix.size());
  return is_shard_name(name) || name == PrepareManifest::file_name || is_tokenizer_file(name);
}

void remove_file(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) throw Error(fmt::format("{}: cannot be removed: {}", path, error.message()));
}

/// Names of the files in a folder, in order.
std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) throw Error(fmt::format("{}: cannot be read: {}", path, error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::vector<PrepareInput> find_inputs(const std::vector<std::string>& patterns,
                                      const std::vector<std::string>& heldout_patterns) {
  std::vector<PrepareInput> inputs;
  std::set<std::string> seen;
  const auto add = [&](const std::vector<std::string>& list, Split split) {
    for (const std::string& pattern : list) {
      for (const std::string& path : expand_glob(pattern)) {
        std::error_code error;
        const std::string real = fs::canonical(path, error).string();
        const std::uintmax_t bytes = error ? 0 : fs::file_size(path, error);
        if (error) throw Error(fmt::format("{}: cannot be read: {}", path, error.message()));
        if (!seen.insert(real).second) {
          throw UsageError(fmt::format("{}: is given twice (by '{}'); give every input once", path, pattern));
        }
        inputs.push_back({path, bytes, split});
      }
    }
  };
  add(patterns, Split::train);
  add(heldout_patterns, Split::heldout);
  return inputs;
}

PrepareFolder::PrepareFolder(std::string path) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error)
    throw Error(fmt::format("{}: the folder cannot be made: {}; choose another --out", path_, error.message()));
  if (::access(path_.c_str(), W_OK | X_OK) != 0) {
    throw Error(fmt::format("{}: cannot be written: {}; choose another --out", path_, std::strerror(errno)));
  }
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) throw Error(fmt::format("{}: cannot be opened: {}", path_, std::strerror(errno)));
  // Some cluster file systems have no locks; then nothing guards against two runs at a time.
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(lock_);
    throw Error(fmt::format("{}: another vqlm prepare writes here; wait for it or choose another --out", path_));
  }
  for (const std::string& name : names_in(path_)) {
    if (is_own_partial(name)) remove_file(file(name));
  }
}

PrepareFolder::~PrepareFolder() {
  ::close(lock_);
}

std::string PrepareFolder::file(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

std::vector<std::string> PrepareFolder::shards() const {
  std::vector<std::string> names = names_in(path_);
  std::erase_if(names, [](const std::string& name) { return !is_shard_name(name); });
  return names;
}

void PrepareFolder::clear() {
  // The manifest goes first: without it no shard counts as finished.
  remove_file(file(PrepareManifest::file_name));
  for (const std::string& name : shards()) remove_file(file(name));
  for (const fs::path& path : tokenizer_files(path_)) remove_file(path.string());
}

void PrepareFolder::remove_unlisted(const PrepareManifest& manifest) {
  std::set<std::string> listed;
  for (const PreparedSource& source : manifest.sources) {
    for (const Part& part : source.parts) listed.insert(part.shards.values.begin(), part.shards.values.end());
  }
  for (const std::string& name : shards()) {
    if (listed.contains(name)) continue;
    log::warn("{}: belongs to no finished part; removed", file(name));
    remove_file(file(name));
  }
}

void check_sources(const PrepareManifest& manifest, const std::vector<PrepareInput>& inputs,
                   const std::string& folder) {
  for (std::size_t i = 0; i < manifest.sources.size(); ++i) {
    const PreparedSource& before = manifest.sources[i];
    // A folder of inputs may have moved, so names are compared; the contents are when their turn comes.
    if (i < inputs.size() && before.split == inputs[i].split &&
        fs::path(before.file.path).filename() == fs::path(path_in_manifest(inputs[i].path)).filename()) {
      continue;
    }
    throw Error(
        fmt::format("{}: holds the shards of {} inputs, number {} is {}, here {}; give the same inputs in the "
                    "same order with new ones behind them, or {}",
                    folder, manifest.sources.size(), i + 1, before.file.path,
                    i < inputs.size() ? inputs[i].path : "missing", other_ways));
  }
}

bool part_is_finished(const Part& part, const SourceFile& source, const ShardMeta& expected,
                      const PrepareFolder& folder) {
  for (const Split split : all_splits) {
    if (part.shards[split].empty()) continue;
    const std::string path = folder.file(part.shards[split]);
    if (!fs::exists(path)) {
      log::warn("{}: is missing; made again from {}", path, source.path);
      return false;
    }
    try {
      ShardReader shard(path);
      const ShardMeta& meta = shard.meta();
      if (meta.tokenizer_sha256 != expected.tokenizer_sha256 || meta.eos_id != expected.eos_id ||
          meta.sources.size() != 1 || meta.sources[0].sha256 != source.sha256 ||
          shard.tokens() != part.counts[split].tokens || shard.document_count() != part.counts[split].documents) {
        log::warn("{}: is not the shard that was written here; made again from {}", path, source.path);
        return false;
      }
      shard.verify();
    } catch (const Error& error) {
      log::warn("{}: is damaged ({}); made again from {}", path, error.what(), source.path);
      return false;
    }
  }
  return true;
}

}  // namespace vqlm
