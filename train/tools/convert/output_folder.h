// A folder that is there whole or not at all.
#pragma once

#include <filesystem>

namespace vqlm {

class OutputFolder {
 public:
  /// Makes `out`.partial, empty. Throws UsageError where `out` is a file or a folder that is not empty, and Error where the
  /// folder cannot be made.
  explicit OutputFolder(const std::filesystem::path& out);
  /// Without publish() nothing stays.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Where to write.
  const std::filesystem::path& partial() const { return partial_; }
  /// Gives the folder its name, durably; its files must be durable already.
  void publish();

 private:
  std::filesystem::path out_, partial_;
  bool published_ = false;
};

/// Throws UsageError where `out` is there and not an empty folder: for commands that compute before they write.
void refuse_existing(const std::filesystem::path& out);

}  // namespace vqlm
