#include "train/records/event_file.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

namespace vqlm {
namespace {

static_assert(std::endian::native == std::endian::little, "TFRecord and protobuf numbers are little-endian");

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}

template <class T>
std::string bytes_of(T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  return std::string(bytes.begin(), bytes.end());
}

// TFRecord masks its CRCs so that a CRC of data that holds CRCs stays sound.
std::string masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return bytes_of(((crc >> 15) | (crc << 17)) + 0xA282EAD8u);
}

// protobuf wire types: https://protobuf.dev/programming-guides/encoding
enum class Wire : std::uint32_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  return out + static_cast<char>(value);
}
std::string tag(std::uint32_t field, Wire wire) {
  return varint((field << 3) | static_cast<std::uint32_t>(wire));
}
std::string bytes_field(std::uint32_t field, std::string_view bytes) {
  return tag(field, Wire::bytes) + varint(bytes.size()) + std::string(bytes);
}

/// Event: wall_time = 1 (double), step = 2 (int64), then `content`.
std::string event(std::int64_t step, const std::string& content) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return tag(1, Wire::fixed64) + bytes_of(now.count()) + tag(2, Wire::varint) +
         varint(static_cast<std::uint64_t>(step)) + content;
}

std::filesystem::path event_path(const std::filesystem::path& folder) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return folder / fmt::format("events.out.tfevents.{}.{}",
                              std::chrono::duration_cast<std::chrono::seconds>(now).count(), ::getpid());
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> table = make_crc_table();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFFu];
  return ~crc;
}

std::string tf_record(std::string_view data) {
  const std::string length = bytes_of(static_cast<std::uint64_t>(data.size()));
  return length + masked_crc(length) + std::string(data) + masked_crc(data);
}

EventFile::EventFile(const std::filesystem::path& folder, std::int64_t first_step) : file_(event_path(folder)) {
  file_.append(tf_record(event(0, bytes_field(3, "brain.Event:2"))));  // file_version = 3
  // session_log = 7 with status = 1 (START): TensorBoard drops earlier events from this step on.
  if (first_step > 1) file_.append(tf_record(event(first_step, bytes_field(7, tag(1, Wire::varint) + varint(1)))));
}

void EventFile::add(std::int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {  // Summary.value = 1: tag = 1, simple_value = 2
    const std::string value = bytes_field(1, scalar.tag) + tag(2, Wire::fixed32) + bytes_of(scalar.value);
    summary += bytes_field(1, value);
  }
  file_.append(tf_record(event(step, bytes_field(5, summary))));  // Event.summary = 5
}

void EventFile::add_text(std::int64_t step, std::string_view text_tag, std::string_view markdown) {
  const auto number = [](std::uint32_t field, std::uint64_t value) { return tag(field, Wire::varint) + varint(value); };
  // TensorProto: dtype = 1 (7: DT_STRING), tensor_shape = 2 (no dimension: one string), string_val = 8.
  const std::string tensor = number(1, 7) + bytes_field(2, "") + bytes_field(8, markdown);
  // SummaryMetadata: plugin_data = 1 (plugin_name = 1), data_class = 4 (2: DATA_CLASS_TENSOR).
  const std::string metadata = bytes_field(1, bytes_field(1, "text")) + number(4, 2);
  // Summary.value = 1: tag = 1, tensor = 8, metadata = 9.
  const std::string value = bytes_field(1, text_tag) + bytes_field(8, tensor) + bytes_field(9, metadata);
  file_.append(tf_record(event(step, bytes_field(5, bytes_field(1, value)))));
}

}  // namespace vqlm
