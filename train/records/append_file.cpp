#include "train/records/append_file.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {

AppendFile::AppendFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw Error(fmt::format("{}: cannot open for writing: {}; check the folder and its permissions", path.string(),
                            std::strerror(errno)));
  }
}

AppendFile::~AppendFile() {
  if (!write_pending()) {
    log::error("{}: the last {} bytes could not be written: {}", path_.string(), pending_.size(), std::strerror(errno));
  }
  if (::close(descriptor_) != 0) log::error("{}: close failed: {}", path_.string(), std::strerror(errno));
}

void AppendFile::append(std::string_view bytes) {
  pending_ += bytes;
  if (write_pending()) return;
  throw Error(fmt::format("{}: cannot write: {}; free some space", path_.string(), std::strerror(errno)));
}

bool AppendFile::write_pending() {
  while (!pending_.empty()) {
    const ssize_t written = ::write(descriptor_, pending_.data(), pending_.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    pending_.erase(0, static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace vqlm
