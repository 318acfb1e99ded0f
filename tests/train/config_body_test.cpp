// The keys of bodies other than Llama's: read, written, checked against each other, and what a body is called.
#include "train/config/config_body_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/temporary_folder.h"
#include "tests/train/config_errors.h"
#include "train/config/model_text.h"
#include "train/config/same_model.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;

TEST(ConfigBody, KeysComeBack) {
  Config config = load_config(
      {}, {"model.head_dim=48", "model.attention_bias=true", "model.qk_norm=width", "model.norm_placement=both",
           "model.activation=geglu", "model.nope_every=4", "model.embedding_scale=16", "model.attention_scale=100",
           "model.window=512", "model.window_pattern=6", "model.window_rope_theta=1e4", "model.rope_theta=1e6",
           "head.kind=dense"});
  resolve(config, 1000, 1);
  EXPECT_EQ(config.model.head_dim(), 48);
  EXPECT_EQ(config.model.window_of(4), 512);
  EXPECT_EQ(config.model.window_of(5), 0);
  EXPECT_FALSE(config.model.rotates(3));
  EXPECT_TRUE(config.model.rotates(4));
  EXPECT_TRUE(config.model.rotates_locally(0));
  EXPECT_FALSE(config.model.rotates_locally(5));
  EXPECT_EQ(body_text(config.model),
            ", head_dim 48, attention_bias true, qk_norm width, norm_placement both, activation geglu, nope_every 4, "
            "embedding_scale 16, attention_scale 100, window 512, window_pattern 6, window_rope_theta 10000");
  EXPECT_EQ(body_text(ModelConfig{}), "");
}

TEST(ConfigBody, OneBodyIsSaidOneWay) {
  Config plain = load_config({}, {"model.window=8"}),
         other = load_config(
             {}, {"model.window=8", "model.head_dim=64", "model.attention_scale=64", "model.window_rope_theta=1e4"});
  for (Config* config : {&plain, &other}) resolve(*config, 1000, 1);
  EXPECT_EQ(body_text(other.model), body_text(plain.model));
  EXPECT_FALSE(first_difference(other, plain, Compared::model));
  other.model.rope_scaling = {.kind = RopeScaling::Kind::linear, .factor = 2};  // which a base of its own leaves alone
  other.model.window_rope_theta = other.model.rope_theta;
  resolve(other, 1000, 1);
  EXPECT_EQ(other.model.window_rope_theta, other.model.rope_theta);
}

TEST(ConfigBody, KeysAreCheckedAgainstEachOther) {
  EXPECT_THAT(resolve_error({"model.window_pattern=6"}), HasSubstr("model.window_pattern = 6 with model.window = 0"));
  EXPECT_THAT(resolve_error({"model.window_rope_theta=100"}), HasSubstr("choose a window, or window_rope_theta = 0"));
  EXPECT_THAT(resolve_error({"model.window=8", "model.window_pattern=1"}), HasSubstr("lets every layer see all"));
  EXPECT_EQ(resolve_error({"model.window=8", "model.window_pattern=2", "model.window_rope_theta=100"}), "");
  EXPECT_THAT(resolve_error({"model.zero_init_outputs=true", "model.norm_placement=post"}),
              HasSubstr("model.zero_init_outputs = true with model.norm_placement = \"post\""));
  EXPECT_EQ(resolve_error({"model.zero_init_outputs=true"}), "");
  EXPECT_THAT(resolve_error({"model.embedding_scale=16"}), HasSubstr("choose input_codes = false"));
  EXPECT_EQ(resolve_error({"model.embedding_scale=16", "head.input_codes=false"}), "");
  EXPECT_THAT(override_error("model.qk_norm=rows"), HasSubstr("model.qk_norm"));
}

TEST(ConfigBody, TheShardsSayWhatEndsADocument) {
  Config config = load_config({}, {"data.document_mask=true"});
  mark_documents(config, 2, "shards");
  EXPECT_EQ(config.model.document_end, 2);
  EXPECT_EQ(load_config({}, {"data.document_mask=true", "model.document_end=2"}).model.document_end, 2);
  EXPECT_THAT(usage_error([&] { mark_documents(config, -1, "a-*.h5"); }),
              HasSubstr("no token ends documents in a-*.h5: prepare ids with --eos"));
  config.data.document_mask = false;
  mark_documents(config, 2, "shards");
  EXPECT_EQ(config.model.document_end, -1);
}

TEST(ConfigBody, ACapOfLogitsIsADenseHeads) {
  EXPECT_EQ(resolve_error({"head.kind=dense", "head.softcap=30"}), "");
  EXPECT_THAT(override_error("head.softcap=30"), HasSubstr("head.softcap"));
}

TEST(ConfigBody, ZLossIsADenseHeads) {
  EXPECT_EQ(resolve_error({"head.kind=dense", "head.z_loss=1e-4"}), "");
  EXPECT_THAT(override_error("head.z_loss=1e-4"), HasSubstr("head.z_loss"));
}

TEST(ConfigBody, HeadsMayHaveAnyEvenWidth) {
  EXPECT_THAT(resolve_error({"model.n_heads=3"}), HasSubstr("or a width of heads by model.head_dim"));
  EXPECT_EQ(resolve_error({"model.n_heads=3", "model.head_dim=32"}), "");
  EXPECT_THAT(resolve_error({"model.head_dim=31"}), HasSubstr("model.head_dim = 31 is odd"));
  Config config = load_config({}, {"model.head_dim=64"});  // d = 256, 4 heads: what it would be anyway
  resolve(config, 1000, 1);
  EXPECT_EQ(config.model.head_width, 0);
  config = load_config({}, {"model.head_dim=128"});
  resolve(config, 1000, 1);
  EXPECT_EQ(usage_error([&] { check_device(config, DType::bf16); }), "");
  config.model.head_width = 96;
  EXPECT_THAT(
      usage_error([&] { check_device(config, DType::bf16); }),
      HasSubstr("makes heads 96 wide, and the CUDA back end has 32, 64 and 128: choose model.n_heads = 2 or 4 or 8, "
                "or model.head_dim = one of these"));
}

TEST(InputTables, ComeBack) {
  Config config = load_config({}, {"input.tables=[{order=2,rows=8192}, {rows=100,order=3}]"});
  resolve(config, 1000, 1);
  const std::vector<NgramTable> tables{{.order = 2, .rows = 8192}, {.order = 3, .rows = 100}};
  EXPECT_EQ(config.model.ngram_tables, tables);
  const TemporaryFolder folder;
  write_bytes(folder.file("c.toml"), to_toml(config));
  EXPECT_THAT(to_toml(config), HasSubstr("[input]\ntables = [{order = 2, rows = 8192}, {order = 3, rows = 100}]\n"));
  EXPECT_EQ(load_config(folder.file("c.toml")).model.ngram_tables, tables);
  EXPECT_TRUE(load_config(folder.file("c.toml"), {"input.tables=[]"}).model.ngram_tables.empty());
  EXPECT_EQ(body_text(config.model), ", input tables [{order = 2, rows = 8192}, {order = 3, rows = 100}]");
  Config other = config;
  other.model.ngram_tables[0].rows = 8191;
  EXPECT_EQ(first_difference(other, config, Compared::model)->key, "input.tables");
}

TEST(InputTables, WhatIsNoneIsNamed) {
  for (const auto& [value, words] : {std::pair{"2:8192", "write a list"},
                                     {"8192", "must be a list: [{order = 2, rows = 8192}]"},
                                     {"[8192]", "must hold tables"},
                                     {"[{order=2,rows=5,heads=1}]", "input.tables has no heads"},
                                     {"[{order=2}]", "rows must be a whole number from 1 to 2147483647"},
                                     {"[{order=1,rows=5}]", "order must be a whole number from 2 to 8"},
                                     {"[{order=2.0,rows=5}]", "order must be a whole number"},
                                     {"[{order=2,rows=2147483648}]", "rows must be a whole number"}})
    EXPECT_THAT(override_error(std::string("input.tables=") + value), HasSubstr(words)) << value;
  EXPECT_THAT(resolve_error({"input.tables=[{order=2,rows=5}]", "head.kind=low_rank", "model.tie_embeddings=true"}),
              HasSubstr("choose input.tables=[], or tie_embeddings = false"));
  EXPECT_EQ(resolve_error({"optim.input_tables_decay_ratio=0.5"}), "");  // there are none
  EXPECT_THAT(resolve_error({"input.tables=[{order=2,rows=5}]", "optim.input_tables_decay_ratio=0.5"}),
              HasSubstr("optim.input_tables_update = \"rows\" with optim.input_tables_decay_ratio = 0.5"));
  EXPECT_EQ(resolve_error({"input.tables=[{order=2,rows=5}]", "optim.input_tables_update=rows"}), "");
}

// By rows, the embedding is a table that only the input reads.
TEST(ConfigBody, TheEmbeddingByRowsIsRefusedWhereAHeadReadsItOrItDecays) {
  const std::string by_rows = "optim.embedding_update=rows", no_decay = "optim.embedding_decay_ratio=0";
  EXPECT_THAT(resolve_error({by_rows, no_decay, "head.kind=vq", "head.members=embedding"}),
              HasSubstr("with head.members = \"embedding\": the head reads the embedding"));
  EXPECT_THAT(resolve_error({by_rows, no_decay, "head.kind=dense", "model.tie_embeddings=true"}),
              HasSubstr("with model.tie_embeddings = true: the head reads the embedding"));
  EXPECT_THAT(resolve_error({by_rows, "head.kind=dense"}), HasSubstr("with optim.embedding_decay_ratio = 1"));
  EXPECT_EQ(resolve_error({by_rows, no_decay, "head.kind=dense"}), "");
  EXPECT_EQ(resolve_error({by_rows, no_decay, "head.kind=vq", "head.members=codes"}), "");
  EXPECT_THAT(resolve_error({"input.tables=[{order=2,rows=5}]", "model.embedding_scale=16", "head.kind=dense"}),
              HasSubstr("model.embedding_scale = 16 with input.tables = [{order = 2, rows = 5}]"));
}

}  // namespace
}  // namespace vqlm
