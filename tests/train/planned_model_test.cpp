// What building a model without memory says of it, against the model itself and formulas of docs/heads.md.
#include "train/engine/planned_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/tiny_model.h"

namespace vqlm {
namespace {

using ::testing::ElementsAre;
using testing::tiny_model_config;
using testing::TinyModel;
using testing::vq;

std::vector<std::string> names_of(const std::vector<LogicalTensor>& tensors) {
  std::vector<std::string> names;
  for (const LogicalTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

TEST(PlannedModel, TensorsStandInTheOrderOfAForwardPass) {
  const Config config = tiny_model_config(HeadKind::dense);
  EXPECT_THAT(names_of(logical_tensors(config.model, config.head)),
              ElementsAre("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                          "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
                          "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight",
                          "model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.gate_proj.weight",
                          "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
                          "model.norm.weight", "lm_head.weight", "lm_head.bias"));
}

TEST(PlannedModel, ATrainedModelHasTheseTensorsAndItsAverages) {
  Config config = tiny_model_config(HeadKind::vq);
  vq(config).learning = EmaLearningConfig{};
  TinyModel model(config);
  const std::vector<LogicalTensor> planned = logical_tensors(model.config().model, model.config().head);
  std::size_t next = 0;
  std::int64_t averages = 0;
  for (const Parameter& p : model.store().parameters()) {
    if (p.rule == UpdateRule::moving_average) {
      ++averages;
      continue;
    }
    ASSERT_LT(next, planned.size());
    EXPECT_EQ(planned[next].name, p.name);
    EXPECT_EQ(planned[next].shape, p.global_shape);
    EXPECT_EQ(planned[next].of_head, p.name.starts_with("vq_head.")) << p.name;
    ++next;
  }
  EXPECT_EQ(next, planned.size());
  EXPECT_EQ(averages, 2);
}

TEST(PlannedModel, ATiedMatrixIsTheEmbeddings) {
  Config config = tiny_model_config(HeadKind::dense);
  config.model.tie_embeddings = true;
  for (const LogicalTensor& tensor : logical_tensors(config.model, config.head))
    EXPECT_EQ(tensor.of_head, tensor.name == "lm_head.bias") << tensor.name;
}

TEST(PlannedModel, CostOfTheHead) {
  const ModelConfig model{.vocab_size = 1000, .d_model = 64};
  VqHeadConfig head{.clusters = 10, .members = CodeMembersConfig{.groups = 4, .codes = 16}};
  EXPECT_EQ(head_cost(model, head).matrix_parameters, 10 * 64 + 16 * 64);
  EXPECT_EQ(head_cost(model, head).bias_parameters, 10 + 1000);
  head.members = NoMembersConfig{};
  EXPECT_EQ(head_cost(model, head).matrix_parameters, 10 * 64);
  EXPECT_EQ(head_cost(model, DenseHeadConfig{}).matrix_parameters, 1000 * 64);
  EXPECT_EQ(head_cost(model, DenseHeadConfig{}).bias_parameters, 1000);
  EXPECT_EQ(head_cost(model, DenseHeadConfig{.bias = false}).bias_parameters, 0);
  EXPECT_EQ(head_cost(model, LowRankHeadConfig{.rank = 8}).matrix_parameters, 8 * (1000 + 64));
  EXPECT_EQ(head_cost(model, LowRankHeadConfig{.rank = 8}).bias_parameters, 1000);
  EXPECT_EQ(head_cost(model, LowRankHeadConfig{.rank = 8}).multiply_adds, 8 * (1000 + 64));
  // 20 words and two bands' classes; 80 tokens at width 16, and 900 at 4.
  const AdaptiveHeadConfig adaptive{.cutoffs = {20, 100}};
  const std::int64_t words = 22 * 64, near = 16 * (80 + 64), far = 4 * (900 + 64);
  EXPECT_EQ(head_cost(model, adaptive).matrix_parameters, words + near + far);
  EXPECT_EQ(head_cost(model, adaptive).bias_parameters, 22 + 80 + 900);
  EXPECT_EQ(head_cost(model, adaptive).code_bytes, 4 * 1000);
  double near_mass = 0, far_mass = 0, all = 0;
  for (int rank = 1; rank <= 1000; ++rank) {
    all += 1.0 / rank;
    if (rank > 20) (rank <= 100 ? near_mass : far_mass) += 1.0 / rank;
  }
  EXPECT_NEAR(head_cost(model, adaptive).multiply_adds, words + near_mass / all * near + far_mass / all * far, 1e-6);
}

}  // namespace
}  // namespace vqlm
