#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "data/files/safetensors.h"

namespace vqlm {

namespace {

using Json = nlohmann::json;

constexpr std::uint64_t length_bytes = 8;

/// The deepest value that a header has: a number in the list of a tensor's field in the object of all tensors.
constexpr int max_depth = 3;

std::uint64_t header_length(std::string_view bytes, std::uint64_t file_size, const std::string& name) {
  if (file_size < length_bytes || bytes.size() < length_bytes) {
    throw Error(fmt::format("{}: is no safetensors file: {} bytes, too short for a header", name, file_size));
  }
  std::uint64_t length = 0;  // little-endian, on any machine
  for (std::size_t i = 0; i < length_bytes; ++i)
    length |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  if (length > max_safetensors_header_bytes || length > file_size - length_bytes) {
    throw Error(fmt::format("{}: is no safetensors file, or cut short: its header would have {} bytes, the file has {}",
                            name, length, file_size));
  }
  return length;
}

/// Refuses at once what would cost memory or be lost by the parser: values too deep, and keys that occur twice.
class KeyCheck {
 public:
  explicit KeyCheck(const std::string& name) : name_(name) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    if (depth > max_depth) throw Error(fmt::format("{}: the header is nested deeper than {} levels", name_, max_depth));
    if (event == Json::parse_event_t::object_start) keys_[depth].clear();
    if (event == Json::parse_event_t::key && !keys_[depth - 1].insert(parsed.get<std::string>()).second)
      throw Error(fmt::format("{}: \"{}\" occurs twice in the header", name_, parsed.get<std::string>()));
    return true;
  }

 private:
  const std::string& name_;
  std::map<int, std::set<std::string>> keys_;  // of the object that is open at a depth
};

Json parse_json(std::string_view text, const std::string& name) {
  if (!text.starts_with('{')) throw Error(fmt::format("{}: the header does not begin with {{", name));
  try {
    // A reference, so that the parser's copies of the callback share its state.
    KeyCheck check(name);
    return Json::parse(text.begin(), text.end(), Json::parser_callback_t(std::ref(check)));
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{}: the header is no JSON: {}", name, error.what()));
  }
}

/// A whole number in [0, 2^63).
std::uint64_t count_of(const Json& value, const std::string& what) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    throw Error(fmt::format("{}: {} is no size", what, value.dump(-1, ' ', false, Json::error_handler_t::replace)));
  return value.get<std::uint64_t>();
}

/// Bytes of the shape; throws where they overflow.
std::uint64_t bytes_of_shape(const SafetensorsEntry& entry, std::uint64_t element_bytes, const std::string& what) {
  if (std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end()) return 0;
  std::uint64_t bytes = element_bytes;
  for (const std::int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes) ||
        bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      throw Error(fmt::format("{}: shape {} has too many elements", what, entry.shape_str()));
  }
  return bytes;
}

SafetensorsEntry parse_entry(const std::string& tensor, const Json& value, std::uint64_t data_begin,
                             std::uint64_t file_size, const std::string& name) {
  const std::string what = fmt::format("{}: tensor {}", name, tensor);
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets"))
    throw Error(fmt::format("{}: must have exactly dtype, shape and data_offsets", what));
  const Json& dtype = value["dtype"];
  const Json& shape = value["shape"];
  const Json& offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2)
    throw Error(fmt::format("{}: dtype must be a string, shape a list and data_offsets a list of two", what));

  SafetensorsEntry entry{.name = tensor, .dtype = dtype.get<std::string>(), .shape = {}};
  for (const Json& extent : shape) entry.shape.push_back(static_cast<std::int64_t>(count_of(extent, what + ": shape")));
  const std::uint64_t begin = count_of(offsets[0], what + ": data_offsets");
  const std::uint64_t end = count_of(offsets[1], what + ": data_offsets");
  if (begin > end || end > file_size - data_begin) {
    throw Error(fmt::format("{}: data_offsets [{}, {}] do not lie in the file's {} bytes of data; is it cut short?",
                            what, begin, end, file_size - data_begin));
  }
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  const std::uint64_t element_bytes = safetensors_element_bytes(entry.dtype);
  const std::uint64_t bytes = bytes_of_shape(entry, std::max<std::uint64_t>(element_bytes, 1), what);
  if (element_bytes > 0 && bytes != end - begin) {
    throw Error(fmt::format("{}: {} of shape {} takes {} bytes, data_offsets [{}, {}] give {}", what, entry.dtype,
                            entry.shape_str(), bytes, begin, end, end - begin));
  }
  return entry;
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& name) {
  if (!value.is_object()) throw Error(fmt::format("{}: __metadata__ must be an object of strings", name));
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) throw Error(fmt::format("{}: __metadata__.{} must be a string", name, key));
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

/// The tensors' bytes follow each other from the end of the header to the end of the file.
void check_cover(const SafetensorsHeader& header, std::uint64_t data_begin, std::uint64_t file_size,
                 const std::string& name) {
  std::uint64_t covered = data_begin;
  for (const SafetensorsEntry& entry : header.tensors) {
    if (entry.begin != covered) {
      throw Error(fmt::format("{}: tensor {}: its bytes {} those before it: they begin at {}, not at {}", name,
                              entry.name, entry.begin < covered ? "overlap" : "leave a gap to",
                              entry.begin - data_begin, covered - data_begin));
    }
    covered = entry.end;
  }
  if (covered != file_size) {
    throw Error(fmt::format("{}: {} bytes after the last tensor belong to none", name, file_size - covered));
  }
}

}  // namespace

std::string SafetensorsEntry::shape_str() const {
  return fmt::format("({})", fmt::join(shape, ", "));
}

std::uint64_t safetensors_element_bytes(std::string_view dtype) {
  static constexpr std::pair<std::string_view, std::uint64_t> known[] = {
      {"F64", 8}, {"I64", 8}, {"U64", 8}, {"F32", 4},     {"I32", 4},     {"U32", 4}, {"F16", 2}, {"BF16", 2},
      {"I16", 2}, {"U16", 2}, {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U8", 1},  {"BOOL", 1}};
  for (const auto& [type, bytes] : known) {
    if (type == dtype) return bytes;
  }
  return 0;
}

SafetensorsHeader parse_safetensors_header(std::string_view bytes, std::uint64_t file_size, const std::string& name) {
  const std::uint64_t length = header_length(bytes, file_size, name);
  if (bytes.size() - length_bytes < length)
    throw Error(fmt::format("{}: is cut short inside its header of {} bytes", name, length));
  const Json json = parse_json(bytes.substr(length_bytes, length), name);
  const std::uint64_t data_begin = length_bytes + length;
  SafetensorsHeader header;
  for (const auto& [key, value] : json.items()) {
    if (key == "__metadata__") {
      header.metadata = parse_metadata(value, name);
    } else {
      header.tensors.push_back(parse_entry(key, value, data_begin, file_size, name));
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);  // an empty tensor before the one that begins with it
  });
  check_cover(header, data_begin, file_size, name);
  return header;
}

}  // namespace vqlm
