#include "data/files/input_paths.h"

#include <glob.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "core/home_path.h"

namespace vqlm {

namespace fs = std::filesystem;

namespace {

/// Files are read several times over (hash, sample, text), which a pipe cannot be.
void refuse_pipe(const std::string& path) {
  std::error_code unreadable;
  const fs::file_type type = fs::status(path, unreadable).type();  // also of /dev/fd/63, whose link leads to no path
  if (type != fs::file_type::fifo && type != fs::file_type::socket && type != fs::file_type::character) return;
  throw Error(fmt::format("{}: is a {}, and inputs are read more than once; write it to a file and give that", path,
                          type == fs::file_type::character ? "device" : "pipe"));
}

}  // namespace

std::vector<std::string> expand_glob(const std::string& pattern) {
  const std::string path = expand_home(pattern);
  std::vector<std::string> paths;
  std::error_code unreadable;
  if (fs::exists(path, unreadable)) {
    paths = {path};
  } else {
    glob_t matches{};
    if (::glob(path.c_str(), 0, nullptr, &matches) == 0) {
      paths.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
    }
    ::globfree(&matches);
  }
  if (paths.empty()) {
    throw Error(fmt::format("{}: no file matches; check the path, or make shards with `vqlm prepare`", pattern));
  }
  std::sort(paths.begin(), paths.end());  // by bytes: glob() sorts by locale, which differs between machines
  std::for_each(paths.begin(), paths.end(), refuse_pipe);
  return paths;
}

}  // namespace vqlm
