#include "data/files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/half_float.h"
#include "data/files/safetensors_writer.h"
#include "tests/data/temporary_folder.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// A file's bytes: the header's length, the header, and `data` bytes of zeros.
std::string file_bytes(const std::string& header, std::size_t data) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return bytes + header + std::string(data, '\0');
}

std::string parse_error(const std::string& header, std::size_t data) {
  const std::string bytes = file_bytes(header, data);
  return error_of([&] { parse_safetensors_header(bytes, bytes.size(), "x.safetensors"); });
}

TEST(HalfFloat, EveryBfloat16AndFloat16SurvivesTheWayThroughFloat) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float half = float_of_f16(bits), brain = float_of_bf16(bits);
    if (std::isnan(half)) {
      EXPECT_TRUE((bits & 0x7C00u) == 0x7C00u && (bits & 0x3FFu) != 0) << i;
    } else {
      EXPECT_EQ(f16_of_float(half), bits) << i;
    }
    if (!std::isnan(brain)) {
      EXPECT_EQ(bf16_of_float(brain), bits) << i;
    }
  }
}

TEST(HalfFloat, KnownValues) {
  EXPECT_EQ(float_of_f16(0x0001), 0x1p-24f);         // smallest subnormal
  EXPECT_EQ(float_of_f16(0x03FF), 1023 * 0x1p-24f);  // largest subnormal
  EXPECT_EQ(float_of_f16(0x0400), 0x1p-14f);         // smallest normal
  EXPECT_EQ(float_of_f16(0x7BFF), 65504.0f);
  EXPECT_EQ(float_of_f16(0xFC00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::signbit(float_of_f16(0x8000)));
  EXPECT_TRUE(std::isnan(float_of_f16(0x7E01)));
}

TEST(HalfFloat, RoundsToNearestAndTiesToEven) {
  // The neighbours of every pair of finite float16 values: half-way goes to the even one, a bit more or less to the nearer.
  for (std::uint32_t i = 0; i < 0x7BFF; ++i) {
    const auto low = static_cast<std::uint16_t>(i), high = static_cast<std::uint16_t>(i + 1);
    const float middle = (float_of_f16(low) + float_of_f16(high)) / 2;  // exact: one more bit than float16 has
    EXPECT_EQ(f16_of_float(middle), i % 2 == 0 ? low : high) << i;
    EXPECT_EQ(f16_of_float(std::nextafter(middle, 0.0f)), low) << i;
    EXPECT_EQ(f16_of_float(-std::nextafter(middle, 1e9f)), high | 0x8000) << i;
  }
  EXPECT_EQ(f16_of_float(65519.996f), 0x7BFF);
  EXPECT_EQ(f16_of_float(65520.0f), 0x7C00);
  EXPECT_EQ(bf16_of_float(std::bit_cast<float>(0x3F808000u)), 0x3F80);  // tie to even
  EXPECT_EQ(bf16_of_float(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  EXPECT_EQ(bf16_of_float(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_TRUE(std::isnan(float_of_bf16(bf16_of_float(std::bit_cast<float>(0x7F800001u)))));
}

TEST(SafetensorsHeader, AcceptsWhatTheFormatAllows) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},)"
      R"("a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"s":{"dtype":"F8_NEW","shape":[],"data_offsets":[28,29]},)"
      R"("none":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[29,29]}}   )";
  const std::string bytes = file_bytes(header, 29);
  const SafetensorsHeader parsed = parse_safetensors_header(bytes, bytes.size());
  ASSERT_EQ(parsed.tensors.size(), 4u);
  EXPECT_EQ(parsed.tensors[0].name, "a");
  EXPECT_EQ(parsed.tensors[1].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(parsed.tensors[1].begin, 8 + header.size() + 4);
  EXPECT_EQ(parsed.metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, NamesFileAndTensorOfEveryDamage) {
  struct Case {
    const char* header;
    std::size_t data;
    const char* words;
  };
  const Case cases[] = {
      {R"(["a"])", 0, "does not begin"},
      {R"({"a":)", 0, "no JSON"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "\"a\" occurs twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4, "\"shape\" occurs twice"},
      {R"({"a":{"dtype":"F32","shape":[[[1]]],"data_offsets":[0,4]}})", 4, "nested deeper"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "tensor a: shape: -1 is no size"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "tensor a: shape: 1.0 is no size"},
      {R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})", 4, "is no size"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4, "too many elements"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "tensor a: F32 of shape (2) takes 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,5]}})", 4, "tensor a: data_offsets [0, 5] do not lie"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "tensor a: data_offsets [4, 0] do not lie"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "tensor a: must have exactly"},
      {R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", 4, "tensor a: dtype must be a string"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
       6, "tensor b: its bytes overlap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[5,9]}})",
       9, "tensor b: its bytes leave a gap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "1 bytes after the last tensor"},
      {R"({"__metadata__":{"format":1}})", 0, "__metadata__.format must be a string"},
  };
  for (const Case& c : cases)
    EXPECT_THAT(parse_error(c.header, c.data), AllOf(HasSubstr("x.safetensors: "), HasSubstr(c.words))) << c.header;
  EXPECT_THAT(error_of([] { parse_safetensors_header("abc", 3, "x"); }), HasSubstr("too short"));
  const TemporaryFolder folder;
  write_bytes(folder.file("a"), "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(error_of([&] { SafetensorsFile(folder.file("a")); }), HasSubstr("a: is a Git LFS pointer in place of"));
  const std::string long_header = std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + "{}";
  EXPECT_THAT(error_of([&] { parse_safetensors_header(long_header, long_header.size(), "x"); }),
              HasSubstr("cut short"));
  const std::string whole = file_bytes("{}", 0);
  EXPECT_THAT(error_of([&] { parse_safetensors_header(whole.substr(0, 9), whole.size(), "x"); }),
              HasSubstr("inside its header"));
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_NE(error_of([&] { parse_safetensors_header(whole.substr(0, n), n, "x"); }), "no error") << n;
}

/// (5, 4, 3): element i is i.
const SafetensorsSpec cube{"cube", "BF16", {5, 4, 3}};
const SafetensorsSpec line{"line", "F16", {7}};
const SafetensorsSpec table{"table", "F32", {6, 2}};
const SafetensorsSpec codes{"codes", "U8", {3, 2}};
const SafetensorsSpec map_spec{"map", "I32", {3}};

void append_range(const SafetensorsSpec& tensor, SafetensorsWriter& file) {
  if (tensor.dtype == "U8") return file.append(std::vector<std::uint8_t>{0, 1, 2, 3, 4, 255});
  if (tensor.dtype == "I32") return file.append(std::vector<std::int32_t>{-1, 70000, 2});
  for (std::int64_t i = 0; i < tensor.shape.numel(); ++i) file.append(std::vector<float>{static_cast<float>(i)});
}

TEST(Safetensors, WhatIsWrittenIsReadByBoxes) {
  const TemporaryFolder folder;
  write_safetensors(folder.path(), {codes, cube, line, table, map_spec}, 1 << 20, append_range);
  const SafetensorsFolder read(folder.path());
  const auto box = [&](const char* name, const Shape& offset, const Shape& extent) {
    const auto& place = read.find(name);
    return place.file->read(*place.entry, offset, extent);
  };
  EXPECT_EQ(box("cube", {1, 1, 1}, {2, 2, 2}), (std::vector<float>{16, 17, 19, 20, 28, 29, 31, 32}));
  EXPECT_EQ(box("line", {2}, {3}), (std::vector<float>{2, 3, 4}));
  EXPECT_EQ(box("table", {4, 0}, {2, 2}), (std::vector<float>{8, 9, 10, 11}));
  EXPECT_EQ(box("table", {0, 1}, {3, 1}), (std::vector<float>{1, 3, 5}));
  EXPECT_TRUE(box("table", {6, 0}, {0, 2}).empty());
  EXPECT_EQ(read.find("codes").file->read_integers(*read.find("codes").entry),
            (std::vector<std::int64_t>{0, 1, 2, 3, 4, 255}));
  EXPECT_EQ(read.find("map").file->read_integers(*read.find("map").entry), (std::vector<std::int64_t>{-1, 70000, 2}));
  for (const auto& [name, place] : read.tensors())
    EXPECT_EQ(place.entry->begin % safetensors_element_bytes(place.entry->dtype), 0u) << name;
  EXPECT_THAT(error_of([&] { box("table", {5, 0}, {2, 2}); }), HasSubstr("tensor table: has shape (6, 2)"));
  EXPECT_THAT(error_of([&] { box("line", {0, 0}, {1, 1}); }), HasSubstr("tensor line"));
  EXPECT_THAT(error_of([&] { box("map", {0}, {1}); }), HasSubstr("tensor map: type I32 is not supported"));
  EXPECT_THAT(error_of([&] { box("nothing", {0}, {1}); }), HasSubstr("no tensor nothing"));
}

TEST(Safetensors, AModelAboveTheLimitBecomesFilesAndAnIndex) {
  const TemporaryFolder folder;
  // 120 + 14 bytes of the first two do not fit 130; 14 + 48 + 6 do.
  write_safetensors(folder.path(), {cube, line, table, codes}, 130, append_range);
  EXPECT_TRUE(std::filesystem::exists(folder.file("model-00002-of-00002.safetensors")));
  EXPECT_FALSE(std::filesystem::exists(folder.file("model.safetensors")));
  {
    const SafetensorsFolder read(folder.path());
    EXPECT_EQ(read.tensors().size(), 4u);
    EXPECT_EQ(read.find("table").file->read(*read.find("table").entry, {5, 0}, {1, 2}), (std::vector<float>{10, 11}));
  }
  const std::string index = folder.file("model.safetensors.index.json");
  auto json = nlohmann::json::parse(read_bytes(index));
  EXPECT_EQ(json["metadata"]["total_size"], 120 + 14 + 48 + 6);
  json["weight_map"]["line"] = "model-00001-of-00002.safetensors";
  write_bytes(index, json.dump());
  EXPECT_THAT(error_of([&] { SafetensorsFolder read(folder.path()); }), HasSubstr("tensor line is not in it"));
  json["weight_map"]["line"] = "../model-00001-of-00002.safetensors";
  write_bytes(index, json.dump());
  EXPECT_THAT(error_of([&] { SafetensorsFolder read(folder.path()); }), HasSubstr("is no name of a file"));
}

TEST(Safetensors, AFileThatIsNotFinishedLeavesNothing) {
  const TemporaryFolder folder;
  const auto write = [&] {
    SafetensorsWriter file(folder.file("model.safetensors"), {line});
    file.append(std::vector<float>{1, 2, 1e6f});
  };
  EXPECT_THAT(error_of(write), AllOf(HasSubstr("tensor line"), HasSubstr("beyond float16")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_THAT(error_of([] { SafetensorsWriter file("/nowhere/model.safetensors", {line}); }),
              HasSubstr("cannot be written"));
  write_bytes(folder.file("pytorch_model.bin"), "");
  EXPECT_THAT(error_of([&] { SafetensorsFolder read(folder.path()); }), HasSubstr("safe_serialization=True"));
}

}  // namespace
}  // namespace vqlm
