#include "data/files/atomic_file.h"

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

/// A pipe or device: nothing to sync and nothing to keep.
void write_special_file(const std::string& path, std::string_view contents) {
  std::ofstream out(path, std::ios::binary);
  out.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  out.close();
  if (!out) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

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

}  // namespace

void write_file_atomically(const std::string& path, std::string_view contents) {
  std::error_code unknown;
  const auto status = std::filesystem::status(path, unknown);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    write_special_file(path, contents);  // a rename would put a file in the place of /dev/stdout
    return;
  }
  const std::string partial = path + std::string(partial_suffix);
  if (write_durably(partial, contents)) return publish_file(partial, path);
  const int reason = errno;
  std::error_code ignored;  // the reason above is what the user needs; the next run removes partial files again
  std::filesystem::remove(partial, ignored);
  throw Error(fmt::format("{}: cannot be written: {}; is the disk full?", path, std::strerror(reason)));
}

void publish_file(const std::string& partial, const std::string& path) {
  sync_to_disk(partial);
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) throw Error(fmt::format("{}: cannot rename to {}: {}", partial, path, error.message()));
  const auto folder = std::filesystem::path(path).parent_path();
  sync_to_disk(folder.empty() ? "." : folder.string());
}

void sync_to_disk(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (file.value() < 0 || ::fsync(file.value()) != 0) {
    throw Error(fmt::format("{}: cannot be made durable (fsync): {}", path, std::strerror(errno)));
  }
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  std::string contents((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  return contents;
}

}  // namespace vqlm
