#include "data/atomic_file.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace vqlm {

namespace {

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  int value() const { return value_; }
  /// False with errno set where the system reports what it could not write.
  bool close() {
    if (value_ < 0) return true;
    const int status = ::close(value_);
    value_ = -1;
    return status == 0;
  }

 private:
  int value_;
};

/// False with errno set.
bool write_durably(const std::string& path, std::string_view contents) {
  Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (file.value() < 0) return false;
  while (!contents.empty()) {
    const ssize_t written = ::write(file.value(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
  return ::fsync(file.value()) == 0 && file.close();
}

bool sync_folder_of(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  Descriptor descriptor(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
  return descriptor.value() >= 0 && ::fsync(descriptor.value()) == 0;
}

}  // namespace

void write_file_atomically(const std::string& path, std::string_view contents) {
  const std::string partial = path + std::string(partial_suffix);
  if (write_durably(partial, contents) && std::rename(partial.c_str(), path.c_str()) == 0 &&
      sync_folder_of(path)) {
    return;
  }
  const int reason = errno;
  std::error_code
      ignored;  // the reason above is what the user needs; the next run removes partial files again
  std::filesystem::remove(partial, ignored);
  throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(reason)));
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  std::string contents((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  return contents;
}

}  // namespace vqlm
