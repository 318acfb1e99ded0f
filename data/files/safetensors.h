// The safetensors format (https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON header that
// names every tensor's type, shape and bytes, then the bytes. Read strictly, a box of rows at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace vqlm {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;                // as the file spells it: "F32", "BF16"
  std::vector<std::int64_t> shape;  // empty for a scalar
  std::uint64_t begin = 0;          // of its bytes, from the file's first byte
  std::uint64_t end = 0;

  /// Returns the shape as messages name it: "(2, 3)".
  std::string shape_str() const;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
};

/// The header's longest length, as in the format's own library.
constexpr std::uint64_t max_safetensors_header_bytes = 100'000'000;

/// Returns the bytes of one element of a type as the file spells it ("F32": 4), 0 for one that is not known here.
std::uint64_t safetensors_element_bytes(std::string_view dtype);

/// Parses `bytes`, the start of a file of `file_size` bytes that holds at least the length and the whole header. Throws
/// Error, which begins with `name` (the file) and names the tensor: a length beyond the file or the limit, JSON that is
/// none, unknown or missing fields, a name that occurs twice, sizes whose product overflows or does not fit the bytes,
/// bytes that overlap, leave a gap or do not reach the file's end.
SafetensorsHeader parse_safetensors_header(std::string_view bytes, std::uint64_t file_size,
                                           const std::string& name = "safetensors header");

/// One file, open for reading. const calls may come from several threads at once.
class SafetensorsFile {
 public:
  /// Throws Error naming a file that cannot be read or whose header is damaged.
  explicit SafetensorsFile(const std::string& path);
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  ~SafetensorsFile();

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }

  /// The box of a tensor of F32, F16 or BF16 at `offset`, `extent` long, row-major. Throws Error for another type, a
  /// box outside of the tensor, or bytes that cannot be read.
  std::vector<float> read(const SafetensorsEntry& entry, const Shape& offset, const Shape& extent) const;
  /// A whole tensor of I64, I32 or U8. Throws Error for another type.
  std::vector<std::int64_t> read_integers(const SafetensorsEntry& entry) const;

 private:
  void read_bytes(const SafetensorsEntry& entry, std::uint64_t begin, std::uint64_t count, char* out) const;

  std::string path_;
  int descriptor_ = -1;
  SafetensorsHeader header_;
};

/// The tensors of a folder: model.safetensors, or the files that model.safetensors.index.json names.
class SafetensorsFolder {
 public:
  /// Throws Error naming what is missing or damaged; a tensor that the index promises and its file does not hold.
  explicit SafetensorsFolder(const std::filesystem::path& folder);

  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };
  /// Returns where each tensor lies, by its name.
  const std::map<std::string, Place>& tensors() const { return tensors_; }
  /// Throws Error naming the folder where there is no such tensor.
  const Place& find(const std::string& name) const;

 private:
  void open_index(const std::string& index);

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> tensors_;
};

}  // namespace vqlm
