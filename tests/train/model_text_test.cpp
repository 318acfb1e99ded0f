// What heads and models are called.
#include "train/config/model_text.h"

#include <gtest/gtest.h>

namespace vqlm {
namespace {

TEST(ModelText, NamesWhatTellsHeadsApart) {
  ModelConfig model;
  EXPECT_EQ(head_text(model, DenseHeadConfig{}), "dense");
  EXPECT_EQ(head_text(model, DenseHeadConfig{.bias = false}), "dense no bias");
  EXPECT_EQ(head_text(model, DenseHeadConfig{.softcap = 30}), "dense softcap 30");
  EXPECT_EQ(head_sentence(DenseHeadConfig{.softcap = 2.5}), "dense, with a token bias, logits capped at 2.5");
  EXPECT_EQ(head_text(model,
                      VqHeadConfig{
                          .clusters = 10, .members = CodeMembersConfig{.groups = 2, .codes = 9}, .input_codes = false}),
            "vq K=10 G=2 Q=9");
  EXPECT_EQ(head_text(model, VqHeadConfig{.clusters = 10, .members = NoMembersConfig{}, .input_codes = false}),
            "vq K=10 G=0");
  EXPECT_EQ(head_text(model, VqHeadConfig{.clusters = 10}), "vq K=10 E mean input codes");
  EXPECT_EQ(head_text(model, LowRankHeadConfig{.bias = false, .rank = 9}), "low_rank r=9 no bias");
  EXPECT_EQ(head_sentence(LowRankHeadConfig{.rank = 9}), "dense of rank 9, with a token bias");
  EXPECT_EQ(head_text(model, AdaptiveHeadConfig{.bias = false, .cutoffs = {5, 17}, .tail_ratio = 3}),
            "adaptive at 5 17 ratio 3 no bias");
  EXPECT_EQ(head_sentence(AdaptiveHeadConfig{.cutoffs = {5, 17}}),
            "adaptive softmax: 3 bands cut at 5 17, each tail band 4 times narrower, with a token bias");
  model.tie_embeddings = true;
  EXPECT_EQ(head_text(model, DenseHeadConfig{}), "dense tied");
  EXPECT_EQ(head_text(model, LowRankHeadConfig{.rank = 9}), "low_rank r=9 tied");
}

TEST(ModelText, NamesAModelsShape) {
  Config config;
  config.model = {.vocab_size = 61, .d_model = 16, .n_layers = 1, .n_heads = 2, .n_kv_heads = 1, .d_ff = 24};
  config.data.seq_len = 8;
  config.head = DenseHeadConfig{};
  EXPECT_EQ(model_text(config), "d 16, 1 layers, 2 heads (1 kv), d_ff 24, vocabulary 61, T 8, head dense");
}

}  // namespace
}  // namespace vqlm
