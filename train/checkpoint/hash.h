// XXH3-64 as checkpoints write it down: 16 hex digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace vqlm {

/// Of bytes that come in pieces.
class Xxh3 {
 public:
  Xxh3();
  void add(const void* data, std::size_t bytes);
  std::string hex() const;

 private:
  struct Free {
    void operator()(void* state) const;
  };
  std::unique_ptr<void, Free> state_;
};

std::string xxh3_of(const void* data, std::size_t bytes);
/// Of `bytes` bytes of a file from `first` on. Throws Error naming the file where it cannot be read or ends before.
std::string xxh3_of_range(const std::filesystem::path& path, std::uint64_t first, std::uint64_t bytes);
/// Of a file's whole contents. Throws Error where it cannot be read.
std::string xxh3_of_file(const std::filesystem::path& path);

}  // namespace vqlm
