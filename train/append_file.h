// A file that only grows: every append is one write at the end, so a crash cuts at most the last record.
#pragma once

#include <filesystem>
#include <string_view>

namespace vqlm {

class AppendFile {
 public:
  /// Opens or creates `path`. Throws Error with the path and the system's reason.
  explicit AppendFile(const std::filesystem::path& path);
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();

  /// Throws Error with the path, for example where the disk is full.
  void append(std::string_view bytes);

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace vqlm
