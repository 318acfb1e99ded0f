// TensorBoard event files, read back by a decoder of the wire format that shares no code with the writer.
#include "train/records/event_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

namespace vqlm {
namespace {

/// Fields of one protobuf message: number -> raw values (varints and fixed as 8 little-endian bytes).
std::multimap<int, std::string> decode_message(const std::string& bytes) {
  std::multimap<int, std::string> fields;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes.at(at++));
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.size()) {
    const std::uint64_t key = varint();
    std::string value;
    switch (key & 7) {
      case 0: {
        const std::uint64_t number = varint();
        value.assign(reinterpret_cast<const char*>(&number), 8);
        break;
      }
      case 1:
        value = bytes.substr(at, 8);
        at += 8;
        break;
      case 2: {
        const std::size_t size = varint();
        value = bytes.substr(at, size);
        at += size;
        break;
      }
      case 5:
        value = bytes.substr(at, 4);
        at += 4;
        break;
      default:
        ADD_FAILURE() << "wire type " << (key & 7);
    }
    fields.emplace(static_cast<int>(key >> 3), value);
  }
  return fields;
}

template <class T>
T number(const std::string& bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

/// Bit by bit, from the polynomial's definition.
std::uint32_t slow_masked_crc32c(const std::string& bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (unsigned char byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1u) != 0 ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
  }
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

std::vector<std::string> read_records(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  const std::string bytes = content.str();
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::string length_bytes = bytes.substr(at, 8);
    const auto length = number<std::uint64_t>(length_bytes);
    EXPECT_EQ(number<std::uint32_t>(bytes.substr(at + 8, 4)), slow_masked_crc32c(length_bytes));
    const std::string data = bytes.substr(at + 12, length);
    EXPECT_EQ(number<std::uint32_t>(bytes.substr(at + 12 + length, 4)), slow_masked_crc32c(data));
    records.push_back(data);
    at += 16 + length;
  }
  return records;
}

std::filesystem::path empty_folder(const char* name) {
  const auto folder = std::filesystem::path(testing::TempDir()) / (std::string(name) + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

TEST(EventFile, Crc32cOfTheStandardsExamples) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(EventFile, RecordsHoldTheScalars) {
  std::filesystem::path path;
  {
    EventFile events(empty_folder("event_file"), 1);
    path = events.path();
    events.add(300, {{"train/loss", 2.5f}, {"train/lr", 1e-4f}});
  }
  EXPECT_EQ(path.filename().string().rfind("events.out.tfevents.", 0), 0u);
  const auto records = read_records(path);
  ASSERT_EQ(records.size(), 2u);
  const auto version = decode_message(records[0]);
  EXPECT_EQ(version.find(3)->second, "brain.Event:2");
  EXPECT_GT(number<double>(version.find(1)->second), 1.7e9);  // wall time in seconds since 1970
  const auto event = decode_message(records[1]);
  EXPECT_EQ(number<std::uint64_t>(event.find(2)->second), 300u);
  const auto summary = decode_message(event.find(5)->second);
  ASSERT_EQ(summary.count(1), 2u);
  auto value = summary.find(1);
  EXPECT_EQ(decode_message(value->second).find(1)->second, "train/loss");
  EXPECT_EQ(number<float>(decode_message(value->second).find(2)->second), 2.5f);
  ++value;
  EXPECT_EQ(decode_message(value->second).find(1)->second, "train/lr");
  EXPECT_EQ(number<float>(decode_message(value->second).find(2)->second), 1e-4f);
}

TEST(EventFile, ATextIsAStringOfTheTextPlugin) {
  std::filesystem::path path;
  {
    EventFile events(empty_folder("event_file_text"), 1);
    path = events.path();
    events.add_text(7, "config", "    [model]\n    d_model = 8\n");
  }
  const auto records = read_records(path);
  ASSERT_EQ(records.size(), 2u);
  const auto event = decode_message(records[1]);
  EXPECT_EQ(number<std::uint64_t>(event.find(2)->second), 7u);
  const auto value = decode_message(decode_message(event.find(5)->second).find(1)->second);
  EXPECT_EQ(value.find(1)->second, "config");
  const auto tensor = decode_message(value.find(8)->second);
  EXPECT_EQ(number<std::uint64_t>(tensor.find(1)->second), 7u);  // DT_STRING
  EXPECT_EQ(tensor.find(2)->second, "");                         // a scalar
  EXPECT_EQ(tensor.find(8)->second, "    [model]\n    d_model = 8\n");
  const auto metadata = decode_message(value.find(9)->second);
  EXPECT_EQ(decode_message(metadata.find(1)->second).find(1)->second, "text");
}

TEST(EventFile, AResumedSessionAnnouncesItsFirstStep) {
  std::filesystem::path path;
  {
    EventFile events(empty_folder("event_file_resumed"), 201);
    path = events.path();
  }
  const auto records = read_records(path);
  ASSERT_EQ(records.size(), 2u);
  const auto event = decode_message(records[1]);
  EXPECT_EQ(number<std::uint64_t>(event.find(2)->second), 201u);
  const auto session = decode_message(event.find(7)->second);
  EXPECT_EQ(number<std::uint64_t>(session.find(1)->second), 1u);  // SessionLog.START
}

}  // namespace
}  // namespace vqlm
