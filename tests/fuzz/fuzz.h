// What the fuzz targets share. A target gives its bytes to one reader of ours, as a file: whatever they are, the reader
// must return, or throw Error with a message. Anything else (another exception, an assertion, a sanitizer's
// report, too much memory or time) is a bug.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "core/error.h"

namespace vqlm::fuzz {

/// The process' folder for files, in memory where the machine has such a place; removed at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    pattern += "/vqlm-fuzz-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) abort();
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  /// Writes a file and returns its path.
  std::string write(const std::string& name, std::string_view bytes) const {
    std::ofstream out(file(name), std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file(name);
  }

 private:
  std::string path_;
};

/// Takes what decides about a file from the front of the input: 0 where it has ended.
class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  std::uint8_t byte() { return static_cast<std::uint8_t>(take(1)[0]); }
  std::uint64_t number(std::size_t bytes = 8) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(bytes).data(), bytes);
    return value;
  }
  std::string text(std::size_t most) {
    const std::size_t n = std::min({most, std::size_t{byte()}, rest_.size()});
    std::string out(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return out;
  }
  /// All that is left.
  std::string_view rest() const { return rest_; }

 private:
  std::string take(std::size_t bytes) {
    std::string out(rest_.substr(0, bytes));
    rest_.remove_prefix(out.size());
    out.resize(bytes, '\0');
    return out;
  }

  std::string_view rest_;
};

/// Runs `read`; Error is a good end where it says something.
template <class Read>
void expect_success_or_error(Read read) {
  try {
    read();
  } catch (const Error& error) {
    if (error.what()[0] == '\0') abort();
  }
}

}  // namespace vqlm::fuzz
