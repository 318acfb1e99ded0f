// Models converted and their heads replaced: what must come back bit by bit, and which probabilities must be equal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/data/temporary_folder.h"
#include "tests/train/saved_model.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/models/dense_expansion.h"
#include "train/models/hf_model.h"
#include "train/models/initial_model.h"
#include "train/models/loaded_model.h"
#include "train/models/model_info.h"
#include "train/models/multiplied_head.h"
#include "train/models/open_model.h"
#include "train/tools/convert/gguf.h"
#include "train/tools/convert/hf_writer.h"
#include "train/tools/convert/model_checkpoint.h"
#include "train/tools/convert/npz.h"

namespace vqlm {
namespace {

using testing::bytes_of;
using testing::config_of;
using ::testing::HasSubstr;
using testing::largest_difference;
using testing::log_probs;
using testing::Saved;
using testing::ScaledHidden;
using testing::set_bias;
using testing::set_future;
using testing::set_groups;
using testing::tiny_model_config;
using testing::TinyModel;
using testing::vq;

// A log-probability here is the difference of sums of d = 16 products with |h_i w_i| below 4 and exponentials of them: some
// 40 roundings of numbers below 16 in each of two models.
constexpr double rounding = 2 * 40 * 16 * 6e-8;

void expect_same_tensors(const ModelSource& a, const ModelSource& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const ModelSource::TensorInfo& tensor : a.tensors()) {
    EXPECT_EQ(bytes_of(read_whole(a, tensor.name)), bytes_of(read_whole(b, tensor.name))) << tensor.name;
  }
}

TEST(Convert, AModelCheckpointHoldsTheSameBits) {
  for (const HeadKind head : {HeadKind::dense, HeadKind::vq, HeadKind::low_rank, HeadKind::adaptive}) {
    const Saved saved(config_of(head));
    write_model_checkpoint(saved.source(), saved.file("converted"));
    const CheckpointReader converted(saved.file("converted"), Verify::yes);
    expect_same_tensors(saved.source(), converted);
    EXPECT_EQ(converted.state().step, 0);
    EXPECT_FALSE(converted.run()->has_optimizer);
    EXPECT_TRUE(saved.source().run()->has_optimizer);
    EXPECT_EQ(converted.tokenizer_sha256(), testing::tiny_tokenizer_sha256);
    ASSERT_EQ(converted.tokenizer_files().size(), 1u);
    EXPECT_EQ(converted.seq_len(), 8);
    const auto map = converted.code_map();
    ASSERT_EQ(map.has_value(), head == HeadKind::vq || head == HeadKind::adaptive);
    if (map) {
      EXPECT_EQ(map->cluster_of_token, saved.source().code_map()->cluster_of_token);
      EXPECT_EQ(map->member_codes, saved.source().code_map()->member_codes);
    }
    EXPECT_FALSE(std::filesystem::exists(saved.file("converted.partial")));
  }
}

TEST(Convert, WhatIsThereStaysAndWhatFailsLeavesNothing) {
  const Saved saved(config_of(HeadKind::dense));
  std::filesystem::create_directories(saved.file("full"));
  std::ofstream(saved.file("full") / "mine") << "x";
  EXPECT_THROW(write_model_checkpoint(saved.source(), saved.file("full")), UsageError);
  EXPECT_THROW(write_npz(saved.source(), saved.file("full") / "mine"), UsageError);

  // A matrix of another size than the configuration's: reading fails in the middle.
  Config wrong = saved.config();
  wrong.model.n_layers = 2;
  std::ofstream(saved.source().path() / "config.toml") << to_toml(wrong);
  const CheckpointReader broken(saved.source().path(), Verify::no);
  EXPECT_THROW(write_model_checkpoint(broken, saved.file("out")), Error);
  EXPECT_THROW(write_npz(broken, saved.file("out.npz")), Error);
  for (const char* name : {"out", "out.partial", "out.npz", "out.npz.partial"}) {
    EXPECT_FALSE(std::filesystem::exists(saved.file(name))) << name;
  }
}

TEST(Convert, OpenModelSaysWhatAFolderIsNot) {
  const TemporaryFolder folder;
  try {
    open_model(folder.file(""));
    FAIL() << "an empty folder is no model";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("neither a checkpoint"));
  }
  EXPECT_THROW(open_model(folder.file("nothing")), Error);
}

TEST(Convert, ExpansionIsExactWithoutMemberCodes) {
  const Saved saved(config_of(HeadKind::vq, 0));
  const DenseExpansion dense(saved.source());
  EXPECT_TRUE(dense.exact());
  EXPECT_LT(largest_difference(log_probs(saved.source()), log_probs(dense)), rounding);
  // It is a model like any other: written and read, the bits stay.
  write_model_checkpoint(dense, saved.file("dense"));
  expect_same_tensors(dense, CheckpointReader(saved.file("dense"), Verify::yes));
}

TEST(Convert, HeadsForLaterTokensAreCarriedOrLeftOut) {
  for (const HeadKind head : {HeadKind::dense, HeadKind::vq, HeadKind::low_rank, HeadKind::adaptive}) {
    Config config = config_of(head);
    set_future(config, 2);
    const Saved saved(config);
    write_model_checkpoint(saved.source(), saved.file("same"));
    const CheckpointReader same(saved.file("same"), Verify::yes);
    expect_same_tensors(saved.source(), same);
    EXPECT_EQ(future_of(same.head()).heads, 2);
    EXPECT_THAT(model_info(same), HasSubstr("; 2 heads for the tokens behind the next one"));

    const WithoutFutureHeads without(saved.source());
    EXPECT_EQ(future_of(without.head()).heads, 0);
    EXPECT_EQ(without.tensors().size() + 2, saved.source().tensors().size());
    EXPECT_EQ(log_probs(saved.source()), log_probs(without));
    write_hf(without, saved.file("hf"), {.dtype = "float32"});
    EXPECT_LT(largest_difference(log_probs(*open_hf_model(saved.file("hf"))), log_probs(without)), rounding);
  }
}

TEST(Convert, ATiedLowRankModelMultipliesOut) {
  Config config = config_of(HeadKind::low_rank);
  config.model.tie_embeddings = true;
  config.model.embedding_scale = 3;
  const Saved saved(config);
  const MultipliedHead dense(saved.source());
  EXPECT_TRUE(dense.model().tie_embeddings);
  EXPECT_LT(largest_difference(log_probs(saved.source()), log_probs(dense)), rounding);
  write_model_checkpoint(dense, saved.file("dense"));
  expect_same_tensors(dense, CheckpointReader(saved.file("dense"), Verify::yes));
}

TEST(Convert, ALowRankHeadMultipliesOut) {
  const Saved saved(config_of(HeadKind::low_rank));
  const MultipliedHead dense(saved.source());
  EXPECT_LT(largest_difference(log_probs(saved.source()), log_probs(dense)), rounding);
  // It is a model like any other: written and read, the bits stay; a box of the matrix is that of the whole.
  write_model_checkpoint(dense, saved.file("dense"));
  expect_same_tensors(dense, CheckpointReader(saved.file("dense"), Verify::yes));
  const std::vector<float> whole = read_whole(dense, "lm_head.weight"),
                           box = dense.read("lm_head.weight", {7, 3}, {2, 4});
  for (std::size_t row = 0; row < 2; ++row)
    for (std::size_t column = 0; column < 4; ++column)
      EXPECT_EQ(box[row * 4 + column], whole[(7 + row) * 16 + 3 + column]);
}

Config config_with_embedding(bool mean = false) {
  Config config = config_of(HeadKind::vq, 0);
  vq(config).members = EmbeddingMembersConfig{.mean = mean};
  return config;
}

Config with_input_codes(Config config) {
  vq(config).input_codes = true;
  return config;
}

TEST(Convert, InputCodesFoldIntoTheTable) {
  for (const Config& config : {config_of(HeadKind::vq, 4), config_with_embedding(), config_with_embedding(true)}) {
    const Saved saved(with_input_codes(config));
    const FoldedInputCodes folded(saved.source());
    EXPECT_FALSE(vq(folded.head()).input_codes);
    for (const ModelSource::TensorInfo& tensor : folded.tensors()) {
      EXPECT_NE(tensor.name, "vq_head.input_codebook");
    }
    EXPECT_LT(largest_difference(log_probs(saved.source()), log_probs(folded)), rounding);
    // They count: without them the model is another.
    EXPECT_NE(read_whole(folded, "model.embed_tokens.weight"), read_whole(saved.source(), "model.embed_tokens.weight"));
    // It is a model like any other: written and read, the bits stay.
    write_model_checkpoint(folded, saved.file("folded"));
    expect_same_tensors(folded, CheckpointReader(saved.file("folded"), Verify::yes));
  }
}

class FirstOrder : public ::testing::TestWithParam<Config> {};

TEST_P(FirstOrder, ExpansionOfMembersWithVectors) {
  const Saved saved(GetParam());
  const auto error_at = [&](float scale) {
    const ScaledHidden scaled(saved.source(), scale);
    return largest_difference(log_probs(scaled), log_probs(DenseExpansion(scaled)));
  };
  // Halving h must quarter an error of second order; that of first order would halve. Third-order terms take a part.
  const double ratio = error_at(0.4f) / error_at(0.2f);
  EXPECT_GT(ratio, 3.2);
  EXPECT_LT(ratio, 4.8);
  EXPECT_FALSE(DenseExpansion(saved.source()).exact());
}

INSTANTIATE_TEST_SUITE_P(Convert, FirstOrder,
                         ::testing::Values(config_of(HeadKind::vq, 4), config_with_embedding(),
                                           config_with_embedding(true)),
                         [](const auto& test) {
                           const VqHeadConfig& head = vq(test.param);
                           if (head.groups() > 0) return std::string("codes");
                           return std::string(head.member_mean() ? "embedding_mean" : "embedding");
                         });

TEST(Convert, ARunIsRefusedAModelOfOtherSizes) {
  const Saved saved(config_of(HeadKind::vq));
  Config config = saved.config();
  vq(config).map = "corpus";  // how the map was made does not matter
  config.optim.lr = 1;
  EXPECT_NO_THROW(check_initial_model(config, saved.source()));
  config.model.rope_theta = 500;
  try {
    check_initial_model(config, saved.source());
    FAIL() << "rope_theta is the model's";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("model.rope_theta = 500.0, but the model of --init"));
    EXPECT_THAT(error.what(), HasSubstr("has 10000.0"));
    EXPECT_THAT(error.what(), HasSubstr("set it so, or leave it out"));
  }
  config = saved.config();
  set_groups(config, 2);
  EXPECT_THROW(check_initial_model(config, saved.source()), UsageError);
}

TEST(Convert, ParametersOfAnotherModelAreRefused) {
  const Saved saved(config_of(HeadKind::dense));
  TinyModel vq(config_of(HeadKind::vq));
  try {
    load_parameters(saved.source(), vq.store());
    FAIL() << "it has no codebook";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("has no tensor vq_head."));
  }
  Config wider = config_of(HeadKind::dense);
  wider.model.d_ff = 32;
  TinyModel other(wider);
  EXPECT_THROW(load_parameters(saved.source(), other.store()), Error);
}

TEST(Convert, InfoSaysWhatACheckpointHolds) {
  const Saved saved(config_of(HeadKind::vq));
  const std::string text = model_info(saved.source());
  for (const char* words : {"checkpoint, step 7", "vocabulary 61, d 16, 1 layers",
                            "VQ: 5 clusters, 4 groups of 7 codes", "tokenizer.model; sha256 0123456789abcdef",
                            "112 tokens; with optimizer state", "vq_head.member_codebook", "(4, 7, 4)"}) {
    EXPECT_THAT(text, HasSubstr(words));
  }
}

TEST(Convert, InputTablesNeedTheNativeForm) {
  Config config = config_of(HeadKind::dense);
  std::get<DenseHeadConfig>(config.head).bias = false;
  config.model.ngram_tables = {{.order = 2, .rows = 31}, {.order = 3, .rows = 9}};
  const Saved saved(config);
  EXPECT_THAT(model_info(saved.source()), HasSubstr(" + 640 input tables + "));
  const TemporaryFolder folder;
  write_hf(saved.source(), folder.file("hf"), {});
  const auto back = open_hf_model(folder.file("hf"));
  EXPECT_EQ(back->model().ngram_tables, config.model.ngram_tables);
  for (const ModelSource::TensorInfo& tensor : saved.source().tensors())
    EXPECT_EQ(read_whole(saved.source(), tensor.name), read_whole(*back, tensor.name)) << tensor.name;
  const auto refusal = [&](const auto& write) -> std::string {
    try {
      write();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal([&] { write_hf(saved.source(), folder.file("expanded"), {.expand = true}); }),
              HasSubstr("no stock class has tables at the input"));
  EXPECT_THAT(refusal([&] { write_gguf(saved.source(), folder.file("a.gguf"), {}, [] {}); }),
              HasSubstr("differs by input tables"));
}

}  // namespace
}  // namespace vqlm
