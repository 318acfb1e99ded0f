// Damaged checkpoints: every kind of damage to every file is found before anything is loaded, and the file is named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_checkpoint.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::save_tiny;
using testing::tiny_model_config;
using testing::TinyModel;

const std::vector<std::string> hashed_files = {"checkpoint.h5", "config.toml", "rank-00000.h5", "rank-00000.json",
                                               "tokenizer.model"};

class DamagedCheckpoint : public ::testing::Test {
 protected:
  DamagedCheckpoint() {
    TinyModel model(tiny_model_config(HeadKind::vq));
    model.randomize(4, 0.3f);
    checkpoint_ = save_tiny(model, folder_.path(), {.step = 5, .samples = 10, .tokens = 80});
  }

  fs::path file(const std::string& name) const { return checkpoint_ / name; }
  std::string opened() const {
    return message_of([&] { CheckpointReader(checkpoint_, Verify::yes); });
  }
  /// What opening says while the file holds `bytes`.
  std::string opened_with(const std::string& name, const std::string& bytes) const {
    const std::string intact = read_bytes(file(name));
    write_bytes(file(name), bytes);
    const std::string message = opened();
    write_bytes(file(name), intact);
    return message;
  }

  TemporaryFolder folder_;
  fs::path checkpoint_;
};

TEST_F(DamagedCheckpoint, IntactOneOpens) {
  EXPECT_EQ(opened(), "no error");
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(checkpoint_)) {
    if (entry.path().filename() != "manifest.json") names.push_back(entry.path().filename());
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAreArray(hashed_files));  // so that no file goes untested
}

TEST_F(DamagedCheckpoint, CutFiles) {
  for (const std::string& name : hashed_files) {
    const std::string bytes = read_bytes(file(name));
    for (const std::size_t length : {std::size_t{0}, std::size_t{1}, bytes.size() / 2, bytes.size() - 1}) {
      EXPECT_THAT(opened_with(name, bytes.substr(0, length)),
                  AllOf(HasSubstr(file(name).string() + ": "), HasSubstr(std::to_string(length) + " bytes instead of")))
          << name << " cut to " << length;
    }
    EXPECT_THAT(opened_with(name, bytes + '\0'), HasSubstr(file(name).string() + ": ")) << name << " grown";
  }
}

TEST_F(DamagedCheckpoint, FlippedBits) {
  const Philox rng(12, "flips");
  std::uint64_t drawn = 0;
  for (const std::string& name : hashed_files) {
    const std::string bytes = read_bytes(file(name));
    for (int flip = 0; flip < 12; ++flip) {
      const std::size_t place = rng.below(drawn++, bytes.size());
      std::string damaged = bytes;
      damaged[place] = static_cast<char>(damaged[place] ^ (1 << rng.below(drawn++, 8)));
      EXPECT_THAT(opened_with(name, damaged), HasSubstr(file(name).string() + ": contents do not match"))
          << name << " flipped in byte " << place;
    }
  }
}

TEST_F(DamagedCheckpoint, TheTensorsThatAreDamagedAreNamed) {
  const std::string bytes = read_bytes(file("rank-00000.h5"));
  const auto table = nlohmann::json::parse(read_bytes(file("rank-00000.json")));
  std::size_t in_tensors = 0;
  for (const auto& slice : table.at("slices")) {
    const auto first = slice.at("first_byte").get<std::size_t>();
    std::size_t elements = 1;
    for (const auto& extent : slice.at("count")) elements *= extent.get<std::size_t>();
    in_tensors += 4 * elements;
    for (const std::size_t place : {first, first + 4 * elements - 1}) {
      std::string damaged = bytes;
      damaged[place] = static_cast<char>(damaged[place] ^ 16);
      EXPECT_THAT(opened_with("rank-00000.h5", damaged),
                  HasSubstr("rank-00000.h5: contents do not match the manifest's hash: damaged in " +
                            slice.at("name").get<std::string>() + ";"));
    }
  }
  EXPECT_LT(in_tensors, bytes.size());
  std::string damaged = bytes;
  damaged[0] = 'x';  // HDF5's signature
  EXPECT_THAT(opened_with("rank-00000.h5", damaged), HasSubstr(": damaged in what HDF5 keeps around the tensors"));
  // Cut in half: more tensors than a line should list.
  EXPECT_THAT(opened_with("rank-00000.h5", bytes.substr(0, bytes.size() / 2)),
              ::testing::ContainsRegex("and [0-9]+ more;"));
  // Without its table nothing can be told, and the table, which comes later in the manifest, is not trusted.
  write_bytes(file("rank-00000.json"), "{}");
  EXPECT_THAT(opened_with("rank-00000.h5", damaged), HasSubstr("its table is damaged, too"));
}

TEST_F(DamagedCheckpoint, MissingFiles) {
  for (const std::string& name : hashed_files) {
    fs::rename(file(name), folder_.file("aside"));
    EXPECT_THAT(opened(), HasSubstr(file(name).string() + ": missing")) << name;
    fs::create_directory(file(name));
    EXPECT_THAT(opened(), HasSubstr(file(name).string() + ": ")) << name << " as a folder";
    fs::remove(file(name));
    fs::rename(folder_.file("aside"), file(name));
  }
  fs::remove(file("manifest.json"));
  EXPECT_THAT(opened(), AllOf(HasSubstr(checkpoint_.string()), HasSubstr("manifest.json")));
}

TEST_F(DamagedCheckpoint, CutManifest) {
  const std::string bytes = read_bytes(file("manifest.json"));
  // The last byte is a line's end, which nothing needs.
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{1}, bytes.size() / 3, bytes.size() / 2, bytes.size() - 2}) {
    EXPECT_THAT(opened_with("manifest.json", bytes.substr(0, length)), HasSubstr(file("manifest.json").string() + ": "))
        << "cut to " << length;
  }
}

/// A manifest with one member replaced.
std::string with(const std::string& manifest, const std::string& key, const nlohmann::json& value) {
  auto json = nlohmann::ordered_json::parse(manifest);
  json[key] = value;
  return json.dump();
}

TEST_F(DamagedCheckpoint, ManifestsThatAreNotOurs) {
  const std::string name = file("manifest.json").string();
  const std::string intact = read_bytes(name);
  EXPECT_THAT(opened_with("manifest.json", with(intact, "version", 3)),
              AllOf(HasSubstr(name + ": "), HasSubstr("version 3 is not vqlm-checkpoint version 2")));
  EXPECT_THAT(opened_with("manifest.json", with(intact, "version", "2")), HasSubstr(name + ": "));
  EXPECT_THAT(opened_with("manifest.json", with(intact, "format", "vqlm-code-map")), HasSubstr(name + ": "));
  EXPECT_THAT(opened_with("manifest.json", with(intact, "step", nullptr)), HasSubstr(name + ": "));
  EXPECT_THAT(opened_with("manifest.json", with(intact, "files", {{{"name", 3}}})), HasSubstr(name + ": "));
  for (const char* text : {"[]", "null", "7", "\"text\"", "{}", "{\"format\": \"vqlm-checkpoint\"}"}) {
    EXPECT_THAT(opened_with("manifest.json", text), HasSubstr(name + ": ")) << text;
  }
}

TEST_F(DamagedCheckpoint, FlippedBitsInTheManifest) {
  const std::string bytes = read_bytes(file("manifest.json"));
  for (std::size_t place = 0; place < bytes.size(); ++place) {
    std::string damaged = bytes;
    damaged[place] = static_cast<char>(damaged[place] ^ (1 << place % 8));
    EXPECT_THAT(opened_with("manifest.json", damaged), HasSubstr(checkpoint_.string() + "/"))
        << "flipped in byte " << place << " of\n"
        << damaged;
  }
}

}  // namespace
}  // namespace vqlm
