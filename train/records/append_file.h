// A file that only grows: every append is one write at the end, so a crash cuts at most the last record.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace vqlm {

class AppendFile {
 public:
  /// Opens or creates `path`. Throws Error with the path and the system's reason.
  explicit AppendFile(const std::filesystem::path& path);
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();

  /// Throws Error with the path, for example where the disk is full; what was not written is kept and goes first the next
  /// time.
  void append(std::string_view bytes);

  const std::filesystem::path& path() const { return path_; }

 private:
  /// Writes what is pending; false with errno set where some of it stays.
  bool write_pending();

  std::filesystem::path path_;
  std::string pending_;
  int descriptor_ = -1;
};

}  // namespace vqlm
