#include "train/records/run_lock.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"

namespace vqlm {
namespace {

/// Whether another process (or another descriptor of this one) holds it; else errno says why there is no lock.
bool is_held_elsewhere(int failure) {
  return failure == EAGAIN || failure == EACCES;
}

/// 0 or errno.
int lock_whole(int descriptor) {
  // An open file description lock: it belongs to this descriptor, not to the process, whose other uses of the file would
  // otherwise give it back. On NFS it is the server's, so it holds between nodes.
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(descriptor, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
}

std::string first_line(const std::string& path) {
  try {
    const std::string text = read_file(path);
    return text.substr(0, text.find('\n'));
  } catch (const Error&) {
    return "";
  }
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder, const std::string& holder) {
  const std::string path = (folder / "run.lock").string();
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw Error(
        fmt::format("{}: cannot be made: {}; choose a run.dir that can be written", path, std::strerror(errno)));
  }
  if (const int failure = lock_whole(descriptor_); failure != 0) {
    const bool held = is_held_elsewhere(failure);
    const std::string other = held ? first_line(path) : "";
    if (held) {
      ::close(descriptor_);
      throw Error(
          fmt::format("run.dir = {}: another job is writing this run ({}); wait for its end, stop it, or "
                      "choose another run.dir",
                      folder.string(), other.empty() ? "which says nothing of itself" : other));
    }
    log::warn("{}: this file system has no locks ({}): see to it that no other job writes this run", path,
              std::strerror(failure));
  }
  const std::string line = holder + '\n';
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, line.data(), line.size(), 0) != static_cast<ssize_t>(line.size())) {
    log::warn("{}: cannot note who holds it: {}", path, std::strerror(errno));
  }
}

RunLock::~RunLock() {
  if (::close(descriptor_) != 0) log::error("closing the lock of a run failed: {}", std::strerror(errno));
}

}  // namespace vqlm
