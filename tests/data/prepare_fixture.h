// Three small inputs in C4's format, a tokenizer, and what one looks at after preparing them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/files/input_paths.h"
#include "data/prepare/prepare.h"
#include "data/shards/shard_set.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {

inline constexpr std::size_t documents_per_file = 400;

/// Every document of a split, in order: its tokens (with the closing one).
inline std::vector<std::vector<std::int32_t>> documents_of(const std::string& glob) {
  std::vector<std::vector<std::int32_t>> documents;
  for (const std::string& path : expand_glob(glob)) {
    ShardReader shard(path);
    const auto offsets = shard.documents();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      documents.emplace_back(offsets[i + 1] - offsets[i]);
      shard.read_tokens(offsets[i], documents.back());
    }
  }
  return documents;
}

class PrepareTest : public testing::Test {
 protected:
  void SetUp() override {
    write_bytes(folder_.file("sp.model"), made_up_tokenizer());
    for (std::uint64_t i = 0; i < 3; ++i) {
      documents_.push_back(made_up_documents(10 + i, documents_per_file));
      write_bytes(input(i), gzip(json_lines(documents_.back())));
    }
  }

  std::string input(std::uint64_t i) const { return folder_.file("c4-train.0000" + std::to_string(i) + ".json.gz"); }
  std::string out(const std::string& name = "shards") const { return folder_.file(name); }
  std::string shard(const std::string& name) const { return out() + "/" + name; }

  PrepareOptions options(const std::string& folder = "shards") const {
    PrepareOptions options;
    options.inputs = {folder_.file("c4-train.*.json.gz")};
    options.tokenizer = folder_.file("sp.model");
    options.out = out(folder);
    options.heldout = 0.05;
    return options;
  }

  std::string error_of(const PrepareOptions& options) {
    try {
      prepare(options);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return error.what();
    }
    return "no error";
  }

  /// name -> bytes of every file in the folder of shards.
  std::map<std::string, std::string> contents(const std::string& name = "shards") const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(out(name))) {
      files[entry.path().filename().string()] = read_bytes(entry.path().string());
    }
    return files;
  }

  TemporaryFolder folder_;
  std::vector<std::vector<std::string>> documents_;  // of each input
};

}  // namespace vqlm
