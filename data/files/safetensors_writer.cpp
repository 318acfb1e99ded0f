#include "data/files/safetensors_writer.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/half_float.h"
#include "data/files/safetensors.h"

namespace vqlm {

namespace {

/// The order of the tensors is that of their bytes.
std::string header_of(const std::vector<SafetensorsSpec>& tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};  // transformers refuses files without it
  std::uint64_t offset = 0;
  for (const SafetensorsSpec& tensor : tensors) {
    nlohmann::ordered_json shape = nlohmann::ordered_json::array();
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) shape.push_back(tensor.shape[axis]);
    const std::uint64_t end = offset + tensor.bytes();
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begin at a multiple of 8 bytes
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(text.size() >> (8 * i) & 0xFFu);
  return bytes + text;
}

std::vector<SafetensorsSpec> aligned(std::vector<SafetensorsSpec> tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const SafetensorsSpec& a, const SafetensorsSpec& b) {
    return safetensors_element_bytes(a.dtype) > safetensors_element_bytes(b.dtype);
  });
  return tensors;
}

std::vector<std::vector<SafetensorsSpec>> split(const std::vector<SafetensorsSpec>& tensors,
                                                std::uint64_t shard_bytes) {
  std::vector<std::vector<SafetensorsSpec>> shards(1);
  std::uint64_t bytes = 0;
  for (const SafetensorsSpec& tensor : tensors) {
    if (!shards.back().empty() && bytes + tensor.bytes() > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(tensor);
    bytes += tensor.bytes();
  }
  return shards;
}

void write_file(const std::string& path, std::vector<SafetensorsSpec> tensors, const AppendTensor& append) {
  tensors = aligned(std::move(tensors));
  SafetensorsWriter file(path, tensors);
  for (const SafetensorsSpec& tensor : tensors) append(tensor, file);
  file.finish();
}

}  // namespace

std::uint64_t SafetensorsSpec::bytes() const {
  return static_cast<std::uint64_t>(shape.numel()) * safetensors_element_bytes(dtype);
}

SafetensorsWriter::SafetensorsWriter(std::string path, std::vector<SafetensorsSpec> tensors)
    : path_(std::move(path)),
      partial_(path_ + std::string(partial_suffix)),
      tensors_(std::move(tensors)),
      file_(std::fopen(partial_.c_str(), "wbe")) {
  if (file_ == nullptr) throw Error(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
  const std::string header = header_of(tensors_);
  if (std::fwrite(header.data(), 1, header.size(), file_) != header.size()) fail(errno);
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);  // what was written is thrown away
  std::error_code error;
  std::filesystem::remove(partial_, error);
  if (error) spdlog::warn("{}: cannot be removed: {}", partial_, error.message());
}

void SafetensorsWriter::fail(int error) {
  std::fclose(file_);
  file_ = nullptr;
  std::error_code ignored;  // the reason given is what the user needs
  std::filesystem::remove(partial_, ignored);
  throw Error(fmt::format("{}: cannot be written: {}; is the disk full?", path_, std::strerror(error)));
}

const SafetensorsSpec& SafetensorsWriter::current() const {
  VQLM_ASSERT(next_ < tensors_.size());
  return tensors_[next_];
}

void SafetensorsWriter::append_bytes(const void* bytes, std::uint64_t count) {
  VQLM_ASSERT(written_ + count <= current().bytes());
  if (std::fwrite(bytes, 1, count, file_) != count) fail(errno);
  written_ += count;
  while (next_ < tensors_.size() && written_ == tensors_[next_].bytes()) {
    ++next_;
    written_ = 0;
  }
}

void SafetensorsWriter::append(std::span<const float> values) {
  const SafetensorsSpec& tensor = current();
  if (tensor.dtype == "F32") return append_bytes(values.data(), values.size_bytes());
  const bool half = tensor.dtype == "F16";
  VQLM_ASSERT(half || tensor.dtype == "BF16");
  std::vector<std::uint16_t> rounded(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    rounded[i] = half ? f16_of_float(values[i]) : bf16_of_float(values[i]);
    if (half && (rounded[i] & 0x7FFFu) == 0x7C00u && std::isfinite(values[i])) {
      throw Error(fmt::format("{}: tensor {}: {} is beyond float16's largest value, 65504; choose bfloat16 or float32",
                              path_, tensor.name, values[i]));
    }
  }
  append_bytes(rounded.data(), rounded.size() * sizeof(std::uint16_t));
}

void SafetensorsWriter::append(std::span<const std::int32_t> values) {
  VQLM_ASSERT(current().dtype == "I32");
  append_bytes(values.data(), values.size_bytes());
}

void SafetensorsWriter::append(std::span<const std::uint8_t> values) {
  VQLM_ASSERT(current().dtype == "U8");
  append_bytes(values.data(), values.size_bytes());
}

void SafetensorsWriter::finish() {
  VQLM_ASSERT(next_ == tensors_.size());
  if (std::fflush(file_) != 0) fail(errno);
  const int closed = std::fclose(file_);
  file_ = nullptr;
  if (closed != 0) throw Error(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
  publish_file(partial_, path_);
}

void write_safetensors(const std::filesystem::path& folder, const std::vector<SafetensorsSpec>& tensors,
                       std::uint64_t shard_bytes, const AppendTensor& append) {
  const auto shards = split(tensors, shard_bytes);
  if (shards.size() == 1) return write_file((folder / "model.safetensors").string(), tensors, append);
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_file((folder / name).string(), shards[i], append);
    for (const SafetensorsSpec& tensor : shards[i]) {
      weight_map[tensor.name] = name;
      total += tensor.bytes();
    }
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  write_file_atomically((folder / "model.safetensors.index.json").string(), index.dump(2) + "\n");
}

}  // namespace vqlm
