// Writes safetensors files (data/files/safetensors.h) as a stream: the header first, from names and shapes that are known, then
// the values, rows at a time. A model larger than a limit becomes several files and an index, as Hugging Face's are.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace vqlm {

struct SafetensorsSpec {
  std::string name;
  std::string dtype;  // "F32", "BF16", "F16", "I32" or "U8"
  Shape shape;

  std::uint64_t bytes() const;
};

/// One file. Nothing stands under its name before finish(); without that call, nothing is left of it.
class SafetensorsWriter {
 public:
  /// The tensors in the order of their bytes; those of larger elements first, so that every tensor is aligned. Throws
  /// Error naming a file that cannot be written.
  SafetensorsWriter(std::string path, std::vector<SafetensorsSpec> tensors);
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  ~SafetensorsWriter();

  /// The next values of the first tensor that is not complete, rounded to its type (nearest, ties to even). Throws Error
  /// for a finite value that F16 cannot hold.
  void append(std::span<const float> values);
  /// Appends the next values of a tensor of I32 or U8 as they are.
  void append(std::span<const std::int32_t> values);
  void append(std::span<const std::uint8_t> values);
  /// Ends the file after the last value: fsync, rename.
  void finish();

 private:
  void append_bytes(const void* bytes, std::uint64_t count);
  const SafetensorsSpec& current() const;
  [[noreturn]] void fail(int error);

  std::string path_;
  std::string partial_;
  std::vector<SafetensorsSpec> tensors_;
  std::size_t next_ = 0;       // tensor
  std::uint64_t written_ = 0;  // of its bytes
  std::FILE* file_ = nullptr;
};

/// Appends all values of a tensor to the file that holds it.
using AppendTensor = std::function<void(const SafetensorsSpec& tensor, SafetensorsWriter& file)>;

/// Writes model.safetensors, or model-00001-of-0000n.safetensors of at most `shard_bytes` each (a larger tensor has one of
/// its own) and model.safetensors.index.json, the last file. Throws Error naming what cannot be written.
void write_safetensors(const std::filesystem::path& folder, const std::vector<SafetensorsSpec>& tensors,
                       std::uint64_t shard_bytes, const AppendTensor& append);

}  // namespace vqlm
