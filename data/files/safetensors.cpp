#include "data/files/safetensors.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/foreign_file.h"
#include "data/files/half_float.h"

namespace vqlm {

namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored in little-endian order");

/// Rows are read this many bytes at a time; one row may be larger.
constexpr std::uint64_t chunk_bytes = 4 << 20;

/// False with errno set, 0 where the file ends early.
bool read_fully(int descriptor, char* out, std::uint64_t count, std::uint64_t offset) {
  while (count > 0) {
    const ssize_t got = ::pread(descriptor, out, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (got == 0) errno = 0;
      return false;
    }
    out += got;
    count -= static_cast<std::uint64_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return true;
}

const char* reason_of(int error) {
  return error == 0 ? "the file ends early" : std::strerror(error);
}

/// `count` elements of a type to f32.
void widen(const char* bytes, std::string_view dtype, std::int64_t count, float* out) {
  if (dtype == "F32") {
    std::memcpy(out, bytes, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  const bool half = dtype == "F16";
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, bytes + 2 * i, sizeof bits);
    out[i] = half ? float_of_f16(bits) : float_of_bf16(bits);
  }
}

/// Copies the box of axes [axis, rank) of one row, whose elements begin at `bytes`.
struct BoxCopy {
  const SafetensorsEntry& entry;
  const Shape& offset;
  const Shape& extent;
  std::int64_t element_bytes;

  std::int64_t inner(int axis) const {
    std::int64_t elements = 1;
    for (std::size_t i = static_cast<std::size_t>(axis) + 1; i < entry.shape.size(); ++i) elements *= entry.shape[i];
    return elements;
  }
  void run(int axis, const char* bytes, float*& out) const {
    const std::int64_t stride = inner(axis);
    if (axis + 1 == offset.rank()) {
      widen(bytes + offset[axis] * element_bytes, entry.dtype, extent[axis], out);
      out += extent[axis];
      return;
    }
    for (std::int64_t i = 0; i < extent[axis]; ++i)
      run(axis + 1, bytes + (offset[axis] + i) * stride * element_bytes, out);
  }
};

template <class T>
std::vector<std::int64_t> widen_integers(const std::vector<char>& bytes) {
  std::vector<std::int64_t> values(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<std::int64_t>(value);
  }
  return values;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  try {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode))
      throw Error(fmt::format("{}: is no regular file", path));
    const auto size = static_cast<std::uint64_t>(status.st_size);
    std::string start(std::min<std::uint64_t>(size, 8), '\0');
    if (!read_fully(descriptor_, start.data(), start.size(), 0))
      throw Error(fmt::format("{}: cannot be read: {}", path, reason_of(errno)));
    std::uint64_t length = 0;
    std::memcpy(&length, start.data(), start.size());
    if (start.size() == 8 && length <= max_safetensors_header_bytes && length <= size - 8) {
      start.resize(8 + length);
      if (!read_fully(descriptor_, start.data() + 8, length, 8))
        throw Error(fmt::format("{}: cannot be read: {}", path, reason_of(errno)));
    } else {
      refuse_foreign_file(path);
    }
    header_ = parse_safetensors_header(start, size, path);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() {
  ::close(descriptor_);  // opened for reading: nothing can be lost
}

void SafetensorsFile::read_bytes(const SafetensorsEntry& entry, std::uint64_t begin, std::uint64_t count,
                                 char* out) const {
  if (!read_fully(descriptor_, out, count, entry.begin + begin))
    throw Error(fmt::format("{}: tensor {}: cannot be read: {}", path_, entry.name, reason_of(errno)));
}

std::vector<float> SafetensorsFile::read(const SafetensorsEntry& entry, const Shape& offset,
                                         const Shape& extent) const {
  if (entry.dtype != "F32" && entry.dtype != "F16" && entry.dtype != "BF16") {
    throw Error(
        fmt::format("{}: tensor {}: type {} is not supported: only F32, F16 and BF16 are; save the model as one "
                    "of them",
                    path_, entry.name, entry.dtype));
  }
  bool inside = static_cast<std::size_t>(offset.rank()) == entry.shape.size() && offset.rank() == extent.rank();
  for (int axis = 0; inside && axis < offset.rank(); ++axis)
    inside = extent[axis] <= entry.shape[static_cast<std::size_t>(axis)] - offset[axis];
  if (!inside) {
    throw Error(fmt::format("{}: tensor {}: has shape {}, which does not hold {} elements at {}", path_, entry.name,
                            entry.shape_str(), extent.str(), offset.str()));
  }
  std::vector<float> values(static_cast<std::size_t>(extent.numel()));
  if (values.empty()) return values;
  float* out = values.data();
  const auto element_bytes = safetensors_element_bytes(entry.dtype);
  const BoxCopy box{entry, offset, extent, static_cast<std::int64_t>(element_bytes)};
  const std::uint64_t row_bytes =
      entry.shape.empty() ? element_bytes : static_cast<std::uint64_t>(box.inner(0)) * element_bytes;
  const std::uint64_t rows = entry.shape.empty() ? 1 : static_cast<std::uint64_t>(extent[0]);
  const std::uint64_t first = entry.shape.empty() ? 0 : static_cast<std::uint64_t>(offset[0]);
  const std::uint64_t chunk_rows = std::min(rows, std::max<std::uint64_t>(1, chunk_bytes / row_bytes));
  std::vector<char> chunk(chunk_rows * row_bytes);
  for (std::uint64_t row = 0; row < rows; row += chunk_rows) {
    const std::uint64_t count = std::min(chunk_rows, rows - row);
    read_bytes(entry, (first + row) * row_bytes, count * row_bytes, chunk.data());
    if (offset.rank() < 2) {  // rows of one element
      widen(chunk.data(), entry.dtype, static_cast<std::int64_t>(count), out);
      out += count;
      continue;
    }
    for (std::uint64_t i = 0; i < count; ++i) box.run(1, chunk.data() + i * row_bytes, out);
  }
  return values;
}

std::vector<std::int64_t> SafetensorsFile::read_integers(const SafetensorsEntry& entry) const {
  if (entry.dtype != "I64" && entry.dtype != "I32" && entry.dtype != "U8") {
    throw Error(fmt::format("{}: tensor {}: type {} is not supported: integers must be I64, I32 or U8", path_,
                            entry.name, entry.dtype));
  }
  std::vector<char> bytes(entry.end - entry.begin);
  read_bytes(entry, 0, bytes.size(), bytes.data());
  if (entry.dtype == "I64") return widen_integers<std::int64_t>(bytes);
  if (entry.dtype == "I32") return widen_integers<std::int32_t>(bytes);
  return widen_integers<std::uint8_t>(bytes);
}

SafetensorsFolder::SafetensorsFolder(const std::filesystem::path& folder) : folder_(folder) {
  const std::filesystem::path single = folder / "model.safetensors";
  const std::filesystem::path index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single.string()));
    for (const SafetensorsEntry& entry : files_.back()->header().tensors)
      tensors_[entry.name] = {files_.back().get(), &entry};
  } else if (std::filesystem::exists(index)) {
    open_index(index.string());
  } else {
    const bool pickled = std::filesystem::exists(folder / "pytorch_model.bin") ||
                         std::filesystem::exists(folder / "pytorch_model.bin.index.json");
    throw Error(fmt::format("{}: holds neither model.safetensors nor model.safetensors.index.json{}", folder.string(),
                            pickled ? "; pytorch_model.bin is not supported: save the model with "
                                      "save_pretrained(..., safe_serialization=True)"
                                    : ""));
  }
}

void SafetensorsFolder::open_index(const std::string& index) {
  const nlohmann::json json = nlohmann::json::parse(read_file(index), nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw Error(fmt::format("{}: must be a JSON object with a weight_map", index));
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [tensor, value] : json["weight_map"].items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : "";
    if (file.empty() || file == ".." || file.find('/') != std::string::npos)
      throw Error(fmt::format("{}: tensor {}: \"{}\" is no name of a file beside it", index, tensor, file));
    const SafetensorsFile*& shard = opened[file];
    if (shard == nullptr) {
      files_.push_back(std::make_unique<SafetensorsFile>((folder_ / file).string()));
      shard = files_.back().get();
    }
    const auto& entries = shard->header().tensors;
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&name = tensor](const SafetensorsEntry& e) { return e.name == name; });
    if (entry == entries.end())
      throw Error(fmt::format("{}: tensor {} is not in it, where {} says it is", shard->path(), tensor, index));
    tensors_[tensor] = {shard, &*entry};
  }
}

const SafetensorsFolder::Place& SafetensorsFolder::find(const std::string& name) const {
  const auto place = tensors_.find(name);
  if (place == tensors_.end()) throw Error(fmt::format("{}: has no tensor {}", folder_.string(), name));
  return place->second;
}

}  // namespace vqlm
