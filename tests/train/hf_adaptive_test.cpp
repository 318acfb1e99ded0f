// An adaptive head as a Hugging Face folder, and what it cannot become.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "tests/train/saved_model.h"
#include "train/models/hf_model.h"
#include "train/tools/convert/gguf.h"
#include "train/tools/convert/hf_writer.h"

namespace vqlm {
namespace {

using testing::config_of;
using ::testing::HasSubstr;
using testing::log_probs;
using testing::Saved;
using testing::set_bias;

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(HfAdaptive, WhatIsWrittenComesBack) {
  for (const bool bias : {true, false}) {
    Config config = config_of(HeadKind::adaptive);
    set_bias(config, bias);
    const Saved saved(config);
    write_hf(saved.source(), saved.file("hf"), {});
    const auto back = open_hf_model(saved.file("hf"));
    EXPECT_EQ(back->description(), "Hugging Face VqlmForCausalLM");
    ASSERT_EQ(back->tensors().size(), saved.source().tensors().size());
    const AdaptiveHeadConfig &read = *adaptive_of(back->head()), &written = *adaptive_of(config.head);
    EXPECT_EQ(read.bias, bias);
    EXPECT_EQ(read.cutoffs, written.cutoffs);
    EXPECT_EQ(read.tail_ratio, written.tail_ratio);
    EXPECT_EQ(back->code_map()->cluster_of_token, saved.source().code_map()->cluster_of_token);
    EXPECT_EQ(back->code_map()->provenance, saved.source().code_map()->provenance);
    EXPECT_EQ(log_probs(*back), log_probs(saved.source()));
  }
}

TEST(HfAdaptive, AFolderIsReadStrictly) {
  const Saved saved(config_of(HeadKind::adaptive));
  write_hf(saved.source(), saved.file("hf"), {});
  const std::string file = saved.file("hf/config.json").string();
  const nlohmann::json good = nlohmann::json::parse(read_file(file));
  const auto refusal = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json bad = good;
    bad[key] = value;
    write_file_atomically(file, bad.dump());
    return error_of([&] { open_hf_model(saved.file("hf")); });
  };
  EXPECT_THAT(refusal("head_cutoffs", nullptr), HasSubstr("head_cutoffs"));
  EXPECT_THAT(refusal("head_cutoffs", {17, 5}), HasSubstr("must rise from 1 to at most 60"));
  EXPECT_THAT(refusal("head_cutoffs", {5, 61}), HasSubstr("must rise from 1 to at most 60"));
  EXPECT_THAT(refusal("head_cutoffs", nlohmann::json::array()), HasSubstr("must hold a number"));
  EXPECT_THAT(refusal("head_cutoffs", {5, 18}), HasSubstr("tensor lm_head.tails.0.weight: has shape (12, 5)"));
  EXPECT_THAT(refusal("head_tail_ratio", 0), HasSubstr("head_tail_ratio"));
  EXPECT_THAT(refusal("tie_word_embeddings", true), HasSubstr("to tie"));
}

TEST(HfAdaptive, WhatNoMatrixEqualsIsRefused) {
  const Saved saved(config_of(HeadKind::adaptive));
  EXPECT_THAT(error_of([&] { write_hf(saved.source(), saved.file("x"), {.expand = true}); }),
              HasSubstr("no matrix equals an adaptive head"));
  EXPECT_THAT(error_of([&] { write_gguf(saved.source(), saved.file("x.gguf"), {}, [] {}); }),
              HasSubstr("--to gguf: has an adaptive head"));
  EXPECT_FALSE(std::filesystem::exists(saved.file("x")));
  EXPECT_FALSE(std::filesystem::exists(saved.file("x.gguf")));
}

}  // namespace
}  // namespace vqlm
