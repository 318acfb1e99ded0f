// Models converted and their heads replaced: what must come back bit by bit, and which probabilities must be equal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/data/temporary_folder.h"
#include "tests/train/tiny_checkpoint.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/models/initial_model.h"
#include "train/models/loaded_model.h"
#include "train/models/model_info.h"
#include "train/models/open_model.h"
#include "train/tools/convert/dense_expansion.h"
#include "train/tools/convert/model_checkpoint.h"
#include "train/tools/convert/npz.h"
#include "train/tools/convert/vq_fit.h"

namespace vqlm {
namespace {

using testing::bytes_of;
using ::testing::HasSubstr;
using testing::save_tiny;
using testing::set_bias;
using testing::set_groups;
using testing::tiny_model_config;
using testing::TinyModel;
using testing::vq;

/// A tiny model's checkpoint, opened.
class Saved {
 public:
  explicit Saved(const Config& config, float stddev = 0.3f) : model_(config) {
    model_.randomize(11, stddev);
    source_.emplace(save_tiny(model_, folder_.file("run"), {.step = 7, .samples = 14, .tokens = 112}), Verify::yes);
  }
  const CheckpointReader& source() const { return *source_; }
  std::filesystem::path file(const std::string& name) const { return folder_.file(name); }
  const Config& config() const { return model_.config(); }

 private:
  TemporaryFolder folder_;
  TinyModel model_;
  std::optional<CheckpointReader> source_;
};

Config config_of(HeadKind head, int groups = 4) {
  Config config = tiny_model_config(head);
  set_groups(config, groups);
  return config;
}

/// (rows, V) log-probabilities after two fixed sequences.
std::vector<float> log_probs(const ModelSource& source) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const BatchShape batch{2, 8};
  const LoadedModel loaded = load_model(source, *backend, grid.tensor(), batch);
  const std::int64_t vocab = source.model().vocab_size;
  std::vector<std::int32_t> ids(16);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>((7 * i + 3) % 61);
  std::vector<float> out(16 * static_cast<std::size_t>(vocab));
  loaded.transformer->log_probs(Tensor(out.data(), DType::f32, {16, vocab}), Tensor(ids.data(), DType::i32, {16}));
  return out;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return largest;
}

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
  for (const HeadKind head : {HeadKind::dense, HeadKind::vq}) {
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
    ASSERT_EQ(map.has_value(), head == HeadKind::vq);
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

/// A model whose last norm is scaled, and h with it.
class ScaledHidden : public ReplacedHead {
 public:
  ScaledHidden(const ModelSource& trunk, float scale) : ReplacedHead(trunk, trunk.head()), scale_(scale) {}
  std::optional<CodeMap> code_map() const override { return trunk().code_map(); }
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override {
    std::vector<float> values = trunk().read(name, offset, extent);
    if (name == "model.norm.weight") {
      for (float& value : values) value *= scale_;
    }
    return values;
  }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override {
    return trunk().read(name, offset, extent);
  }
  float scale_;
};

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

TEST(Convert, AFitWithEnoughClustersOrCodesIsExact) {
  const Saved saved(config_of(HeadKind::dense));
  const auto backend = make_cpu_backend(1);
  const std::vector<float> expected = log_probs(saved.source());
  TextStatistics text;
  for (int i = 0; i < 16; ++i) text.mean_hidden.push_back(0.1f * static_cast<float>(i - 8));
  for (int v = 0; v < 61; ++v) text.counts.push_back(v * v);
  for (const TextStatistics& known : {TextStatistics{}, text}) {
    // Every token its own cluster: c_v = w_v, beta_v = b_v.
    const VqFit alone = fit_vq_head(saved.source(), {.clusters = 61, .groups = 0}, known, *backend);
    EXPECT_LT(largest_difference(expected, log_probs(*alone.model)), rounding);
    EXPECT_NEAR(alone.kept_by_clusters, 1.0, 1e-6);
    // One cluster, and a code for every token: u_v = w_v - mean.
    const VqFit coded = fit_vq_head(saved.source(), {.clusters = 1, .groups = 2, .codes = 61}, known, *backend);
    EXPECT_LT(largest_difference(expected, log_probs(*coded.model)), rounding);
    EXPECT_NEAR(coded.kept_by_clusters, 0.0, 1e-6);
    EXPECT_NEAR(coded.kept_by_codes, 1.0, 1e-6);
  }
}

/// Mean of KL(expected || actual) over the rows.
double divergence(const std::vector<float>& expected, const std::vector<float>& actual) {
  double sum = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto p = static_cast<double>(expected[i]);
    sum += std::exp(p) * (p - static_cast<double>(actual[i]));
  }
  return sum / 16;
}

TEST(Convert, AFitComesCloserWithCodesThanWithClustersAlone) {
  Config config = config_of(HeadKind::dense);
  config.model.tie_embeddings = true;
  set_bias(config, false);
  const Saved saved(config);
  const auto backend = make_cpu_backend(1);
  const VqFit clusters = fit_vq_head(saved.source(), {.clusters = 8, .groups = 0}, {}, *backend);
  const VqFit codes = fit_vq_head(saved.source(), {.clusters = 8, .groups = 8, .codes = 16}, {}, *backend);
  EXPECT_FALSE(codes.model->model().tie_embeddings);
  EXPECT_GT(codes.kept_by_codes, codes.kept_by_clusters);
  const std::vector<float> expected = log_probs(saved.source());
  const double of_codes = divergence(expected, log_probs(*codes.model));
  EXPECT_GT(of_codes, 0);
  EXPECT_LT(2 * of_codes, divergence(expected, log_probs(*clusters.model)));
  // And back again, the matrix an own one.
  EXPECT_EQ(read_whole(DenseExpansion(*codes.model), "lm_head.weight").size(), 61u * 16u);
}

// s_v = h . w_v + b_v inside a cluster, as the dense head has it: only what a cluster is as a whole is fitted.
TEST(Convert, AFitByTheRowsOfATiedMatrixLosesNothingInsideAClusterAndLeastOfAll) {
  Config config = config_of(HeadKind::dense);
  config.model.tie_embeddings = true;
  const Saved saved(config);
  const auto backend = make_cpu_backend(1);
  const std::vector<float> expected = log_probs(saved.source());
  TextStatistics text;
  for (int i = 0; i < 16; ++i) text.mean_hidden.push_back(0.1f * static_cast<float>(i - 8));
  for (const TextStatistics& known : {TextStatistics{}, text}) {
    const auto fitted = [&](VqFitOptions options) {
      return log_probs(*fit_vq_head(saved.source(), options, known, *backend).model);
    };
    EXPECT_LT(largest_difference(expected, fitted({.members = MemberVectors::embedding, .clusters = 61})), rounding);
    EXPECT_LT(largest_difference(expected, fitted({.members = MemberVectors::embedding, .clusters = 1})), rounding);
    const double by_rows = divergence(expected, fitted({.members = MemberVectors::embedding, .clusters = 8}));
    EXPECT_GT(by_rows, 0);
    EXPECT_LT(1.5 * by_rows, divergence(expected, fitted({.clusters = 8, .groups = 8, .codes = 16})));
  }
  const Saved untied(config_of(HeadKind::dense));
  EXPECT_THROW(fit_vq_head(untied.source(), {.members = MemberVectors::embedding}, {}, *backend), UsageError);
  EXPECT_EQ(
      vq_sizes({.vocab_size = 50257, .d_model = 768, .tie_embeddings = true}, {.members = MemberVectors::embedding})
          .clusters,
      512);
}

TEST(Convert, SizesOfAFit) {
  const auto sizes = [](std::int64_t vocab, std::int64_t d) {
    return vq_sizes({.vocab_size = vocab, .d_model = d}, {});
  };
  EXPECT_EQ(sizes(50257, 768).clusters, 256);
  EXPECT_EQ(sizes(50257, 768).codes, 256);
  EXPECT_EQ(sizes(50257, 768).groups, 64);
  EXPECT_EQ(sizes(128256, 4096).clusters, 1024);
  EXPECT_EQ(sizes(49152, 576).groups, 64);
  try {
    vq_sizes({.vocab_size = 1000, .d_model = 60}, {.groups = 16});
    FAIL() << "16 does not divide 60";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--groups 16: it must divide the model's width d = 60"));
  }
  EXPECT_THROW(vq_sizes({.vocab_size = 10, .d_model = 64}, {.clusters = 11}), UsageError);
}

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
    EXPECT_THAT(error.what(), HasSubstr("/config.toml"));
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

}  // namespace
}  // namespace vqlm
