#include "data/durable_rename.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace vqlm {
namespace {

/// Makes a file or folder durable.
void sync_path(const std::string& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0) throw Error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  const int status = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);  // opened for reading: nothing is lost if this fails
  if (status != 0) throw Error(fmt::format("{}: cannot fsync: {}", path, std::strerror(reason)));
}

}  // namespace

void publish_file(const std::string& partial, const std::string& path) {
  sync_path(partial, O_RDONLY);
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) throw Error(fmt::format("{}: cannot rename to {}: {}", partial, path, error.message()));
  const auto folder = std::filesystem::path(path).parent_path();
  sync_path(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
}

}  // namespace vqlm
