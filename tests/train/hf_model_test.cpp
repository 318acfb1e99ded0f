// Hugging Face folders without Python: what is written comes back, what cannot be computed is refused. The comparisons with
// transformers are in tests/interop.
#include "train/models/hf_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/half_float.h"
#include "tests/data/temporary_folder.h"
#include "tests/train/tiny_checkpoint.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/models/multiplied_head.h"
#include "train/tools/convert/expanded_head.h"
#include "train/tools/convert/hf_writer.h"
#include "train/tools/convert/model_checkpoint.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using testing::bytes_of;
using ::testing::HasSubstr;
using testing::set_bias;
using testing::set_groups;
using testing::tiny_model_config;
using testing::TinyModel;
using testing::vq;

/// A tiny model, by way of its checkpoint; the fixture's tokenizer is none.
class TinySource : public ModelSource {
 public:
  explicit TinySource(const Config& config) : tiny_(config) {
    tiny_.randomize(11, 0.3f);
    source_.emplace(testing::save_tiny(tiny_, folder_.file("run"), {.step = 1, .samples = 2, .tokens = 16}),
                    Verify::yes);
  }
  const std::filesystem::path& path() const override { return source_->path(); }
  std::string description() const override { return source_->description(); }
  const ModelConfig& model() const override { return source_->model(); }
  const HeadConfig& head() const override { return source_->head(); }
  std::optional<CodeMap> code_map() const override { return source_->code_map(); }
  std::vector<TensorInfo> tensors() const override { return source_->tensors(); }
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override {
    if (name == zeroed) return std::vector<float>(static_cast<std::size_t>(extent.numel()), 0.0f);
    return source_->read(name, offset, extent);
  }
  std::vector<std::filesystem::path> tokenizer_files() const override { return {}; }
  std::string tokenizer_sha256() const override { return ""; }
  std::int64_t seq_len() const override { return source_->seq_len(); }

  std::string zeroed;  // this tensor reads as zeros

 private:
  TemporaryFolder folder_;
  TinyModel tiny_;
  std::optional<CheckpointReader> source_;
};

Config config_of(HeadKind kind, bool bias = true, bool tied = false, int groups = 4) {
  Config config = tiny_model_config(kind);
  set_bias(config, bias);
  set_groups(config, groups);
  config.model.tie_embeddings = tied;
  config.model.rope_scaling = {.kind = RopeScaling::Kind::llama3, .factor = 8, .original_positions = 32};
  return config;
}

Config capped(Config config) {
  std::get<DenseHeadConfig>(config.head).softcap = 30;
  return config;
}

Config averaged(Config config) {
  vq(config).learning = EmaLearningConfig{.ema_decay = 0.9f};
  return config;
}

Config with_embedding(bool mean = false) {
  Config config = config_of(HeadKind::vq, true, false, 0);
  vq(config).members = EmbeddingMembersConfig{.mean = mean};
  return config;
}

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

nlohmann::json read_json(const std::string& file) {
  return nlohmann::json::parse(read_bytes(file));
}

TEST(HfModel, WhatIsWrittenComesBack) {
  struct Case {
    Config config;
    bool native;
    std::uint64_t shard_bytes;
  };
  const Case cases[] = {{config_of(HeadKind::dense, false), false, 4000},
                        {config_of(HeadKind::dense, false, true), false, 1 << 20},
                        {config_of(HeadKind::dense, true, true), true, 1 << 20},
                        {capped(config_of(HeadKind::dense, false)), true, 1 << 20},
                        {capped(config_of(HeadKind::dense, true, true)), true, 1 << 20},
                        {config_of(HeadKind::low_rank), true, 4000},
                        {config_of(HeadKind::low_rank, false), true, 1 << 20},
                        {config_of(HeadKind::vq), true, 4000},
                        {config_of(HeadKind::vq, false), true, 1 << 20},
                        {averaged(config_of(HeadKind::vq)), true, 1 << 20},
                        {with_embedding(), true, 1 << 20},
                        {with_embedding(true), true, 4000},
                        {config_of(HeadKind::vq, true, false, 0), true, 1 << 20}};
  for (const Case& c : cases) {
    const TinySource source(c.config);
    const TemporaryFolder folder;
    write_hf(source, folder.file("hf"), {.shard_bytes = c.shard_bytes});
    EXPECT_EQ(std::filesystem::exists(folder.file("hf/model.safetensors.index.json")), c.shard_bytes == 4000);
    EXPECT_EQ(std::filesystem::exists(folder.file("hf/modeling_vqlm.py")), c.native);
    const auto back = open_hf_model(folder.file("hf"));
    EXPECT_EQ(back->description(), c.native ? "Hugging Face VqlmForCausalLM" : "Hugging Face LlamaForCausalLM");
    ASSERT_EQ(back->tensors().size(), source.tensors().size());
    for (const ModelSource::TensorInfo& tensor : source.tensors())
      EXPECT_EQ(bytes_of(read_whole(source, tensor.name)), bytes_of(read_whole(*back, tensor.name))) << tensor.name;
    const ModelConfig& model = back->model();
    EXPECT_EQ(model.d_ff, 24);
    EXPECT_EQ(model.n_kv_heads, 1);
    EXPECT_EQ(model.norm_eps, source.model().norm_eps);
    EXPECT_EQ(model.rope_scaling.kind, RopeScaling::Kind::llama3);
    EXPECT_EQ(model.rope_scaling.original_positions, 32);
    EXPECT_EQ(kind_of(back->head()), kind_of(c.config.head));
    EXPECT_EQ(has_bias(back->head()), has_bias(c.config.head));
    EXPECT_EQ(softcap_of(back->head()), softcap_of(c.config.head));
    EXPECT_EQ(back->seq_len(), 8);
    ASSERT_EQ(back->code_map().has_value(), source.code_map().has_value());
    if (!back->code_map()) continue;
    const VqHeadConfig &read = vq(back->head()), &written = vq(c.config);
    EXPECT_EQ(read.learning.index(), written.learning.index());
    EXPECT_EQ(read.members.index(), written.members.index());
    EXPECT_EQ(read.member_mean(), written.member_mean());
    if (read.averages()) {
      EXPECT_EQ(std::get<EmaLearningConfig>(read.learning).ema_decay, 0.9f);
    }
    EXPECT_EQ(back->code_map()->cluster_of_token, source.code_map()->cluster_of_token);
    EXPECT_EQ(back->code_map()->member_codes, source.code_map()->member_codes);
    EXPECT_EQ(back->code_map()->provenance, source.code_map()->provenance);
  }
}

TEST(HfModel, SixteenBitsAreRoundedOnce) {
  const TinySource source(config_of(HeadKind::dense, false));
  const TemporaryFolder folder;
  write_hf(source, folder.file("hf"), {.dtype = "bfloat16"});
  const auto back = open_hf_model(folder.file("hf"));
  EXPECT_EQ(back->tensors()[0].stored_as, "bfloat16");
  std::vector<float> rounded = read_whole(source, "lm_head.weight");
  for (float& value : rounded) value = float_of_bf16(bf16_of_float(value));
  EXPECT_EQ(read_whole(*back, "lm_head.weight"), rounded);
  EXPECT_THAT(error_of([&] { write_hf(source, folder.file("x"), {.dtype = "int8"}); }), HasSubstr("\"int8\""));
}

TEST(HfModel, WhatTransformersSavesOfItComesBack) {
  const TemporaryFolder folder;
  write_hf(TinySource(with_embedding()), folder.file("hf"), {});
  nlohmann::json config = read_json(folder.file("hf/config.json"));
  config["vq_groups"] = config["vq_codes"] = 0;  // save_pretrained writes every argument
  write_bytes(folder.file("hf/config.json"), config.dump());
  EXPECT_TRUE(vq(open_hf_model(folder.file("hf"))->head()).by_embedding());
}

TEST(HfModel, IdsThatConfigJsonAloneTellsTravel) {
  const TemporaryFolder folder;
  write_hf(TinySource(config_of(HeadKind::dense, false)), folder.file("hf"), {});
  std::filesystem::remove(folder.file("hf/generation_config.json"));
  nlohmann::json config = read_json(folder.file("hf/config.json"));
  config["bos_token_id"] = 1;
  config["eos_token_id"] = {2, 5, 7};
  write_bytes(folder.file("hf/config.json"), config.dump());
  const auto model = open_hf_model(folder.file("hf"));
  write_hf(*model, folder.file("straight"), {});
  write_model_checkpoint(*model, folder.file("checkpoint"));
  write_hf(CheckpointReader(folder.file("checkpoint"), Verify::yes), folder.file("back"), {});
  for (const std::string out : {"straight", "back"}) {
    const nlohmann::json back = read_json(folder.file(out + "/config.json"));
    EXPECT_EQ(back["bos_token_id"], 1) << out;
    EXPECT_EQ(back["eos_token_id"], 2) << out;
    EXPECT_EQ(read_json(folder.file(out + "/generation_config.json"))["eos_token_id"], config["eos_token_id"]) << out;
  }
}

TEST(HfModel, ABiasOfZerosIsNone) {
  TinySource source(config_of(HeadKind::dense));
  source.zeroed = "lm_head.bias";
  const TemporaryFolder folder;
  write_hf(source, folder.file("hf"), {});
  EXPECT_EQ(read_json(folder.file("hf/config.json"))["model_type"], "llama");
  EXPECT_FALSE(has_bias(open_hf_model(folder.file("hf"))->head()));
}

TEST(HfModel, ExpansionsAreExactOrRefused) {
  const TemporaryFolder folder;
  const auto expand = [&](const ModelSource& source) { write_hf(source, folder.file("hf"), {.expand = true}); };
  EXPECT_THAT(error_of([&] { expand(TinySource(config_of(HeadKind::vq))); }), HasSubstr("head.groups = 4"));
  EXPECT_THAT(error_of([&] { expand(TinySource(config_of(HeadKind::dense))); }), HasSubstr("has no bias"));
  EXPECT_THAT(error_of([&] { expand(TinySource(capped(config_of(HeadKind::dense, false)))); }),
              HasSubstr("LlamaForCausalLM does not cap logits, and this head does (head.softcap = 30)"));
  Config config = config_of(HeadKind::vq, false, false, 0);
  EXPECT_THAT(error_of([&] { expand(TinySource(config)); }),
              HasSubstr("has no bias"));  // 61 tokens, 5 clusters
  vq(config).clusters = 1;
  expand(TinySource(config));  // all tokens in one cluster: each has log(1 / 61), and no bias in between
  EXPECT_EQ(read_json(folder.file("hf/config.json"))["model_type"], "llama");
  const TinySource one(config);
  const std::vector<float> row = read_whole(one, "vq_head.codebook");
  EXPECT_EQ(open_hf_model(folder.file("hf"))->read("lm_head.weight", {60, 0}, {1, 16}), row);

  // Clusters of one token each: the scores inside cancel whatever G is, and the cluster's bias is the token's.
  config = config_of(HeadKind::vq);
  vq(config).clusters = 61;
  TinySource alone(config);
  const ExpandedHead head = expand_head(alone);
  const std::vector<float> bias = read_whole(alone, "vq_head.cluster_bias");
  for (std::size_t v = 0; v < 61; ++v)
    EXPECT_EQ(head.constants[v], bias[static_cast<std::size_t>(head.row_of_token[v])]);
}

TEST(HfModel, ALowRankHeadExpandsToStockLlama) {
  const TemporaryFolder folder;
  const TinySource source(config_of(HeadKind::low_rank, false));
  write_hf(source, folder.file("hf"), {.expand = true});
  EXPECT_EQ(read_json(folder.file("hf/config.json"))["model_type"], "llama");
  const std::vector<float> classes = read_whole(source, "lm_head.weight"),
                           projection = read_whole(source, "lm_head.projection.weight"),
                           matrix = read_whole(*open_hf_model(folder.file("hf")), "lm_head.weight");
  ASSERT_EQ(matrix.size(), 61U * 16);
  for (std::size_t v = 0; v < 61; ++v) {
    for (std::size_t j = 0; j < 16; ++j) {
      double sum = 0;
      for (std::size_t i = 0; i < 5; ++i)
        sum += static_cast<double>(classes[v * 5 + i]) * static_cast<double>(projection[i * 16 + j]);
      EXPECT_FLOAT_EQ(matrix[v * 16 + j], static_cast<float>(sum));
    }
  }
  EXPECT_THAT(
      error_of([&] { write_hf(TinySource(config_of(HeadKind::low_rank)), folder.file("x"), {.expand = true}); }),
      HasSubstr("has no bias"));
}

TEST(HfModel, ATiedLowRankModelMustBeMultipliedOut) {
  const TemporaryFolder folder;
  const TinySource source(config_of(HeadKind::low_rank, false, true));
  EXPECT_THAT(error_of([&] { write_hf(source, folder.file("x"), {}); }), HasSubstr("--head dense, or --expand"));
  write_hf(source, folder.file("hf"), {.expand = true});
  const auto back = open_hf_model(folder.file("hf"));
  EXPECT_EQ(back->description(), "Hugging Face LlamaForCausalLM");
  EXPECT_TRUE(back->model().tie_embeddings);
  EXPECT_EQ(read_whole(*back, "model.embed_tokens.weight"),
            read_whole(MultipliedHead(source), "model.embed_tokens.weight"));
}

TEST(HfModel, ALowRankFolderIsReadStrictly) {
  const TemporaryFolder folder;
  write_hf(TinySource(config_of(HeadKind::low_rank)), folder.file("hf"), {});
  const std::string file = folder.file("hf/config.json");
  const nlohmann::json good = read_json(file);
  const auto refusal = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json bad = good;
    bad[key] = value;
    write_bytes(file, bad.dump());
    return error_of([&] { open_hf_model(folder.file("hf")); });
  };
  EXPECT_THAT(refusal("head_rank", nullptr), HasSubstr("has no head_rank"));
  EXPECT_THAT(refusal("head_rank", 17), HasSubstr("head_rank = 17 is above hidden_size = 16"));
  EXPECT_THAT(refusal("head_rank", 4), HasSubstr("tensor lm_head.weight: has shape (61, 5)"));
  EXPECT_THAT(refusal("tie_word_embeddings", true), HasSubstr("to tie"));
  EXPECT_THAT(refusal("head_kind", "deep"), HasSubstr("dense, vq, low_rank"));
}

TEST(HfModel, NamesWhatIsMissingLeftOverOrNotSupported) {
  const TinySource source(config_of(HeadKind::vq));
  const TemporaryFolder folder;
  write_hf(source, folder.file("hf"), {});
  const std::string config = folder.file("hf/config.json");
  const nlohmann::json good = read_json(config);
  struct Case {
    const char* key;
    nlohmann::json value;
    const char* words;
  };
  const Case cases[] = {
      {"model_type", "gemma", "model_type = \"gemma\" is not supported"},
      {"rope_scaling", {{"type", "yarn"}}, "rope_scaling.type = \"yarn\" is not supported"},
      {"rope_scaling", {{"type", "linear"}}, "has no rope_scaling.factor"},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 0.5}}, "rope_scaling.factor = 0.5 must be at least 1"},
      {"rope_scaling", "linear", "rope_scaling = \"linear\" must be an object"},
      {"sliding_window", 4096, "sliding_window = 4096 is not supported"},
      {"hidden_size", nullptr, "has no hidden_size"},
      {"hidden_size", 1e300, "hidden_size = 1e+300 is no size"},
      {"num_hidden_layers", 2000000000, "num_hidden_layers = 2000000000 is above"},
      {"num_hidden_layers", 2, "no tensor model.layers.1.input_layernorm.weight"},
      {"head_bias", false, "tensor lm_head.token_bias of shape (61) has no place"},
      {"vq_clusters", 62, "vq_clusters = 62 is not possible"},
      {"vq_clusters", 4, "tensor lm_head.codebook: has shape (5, 16)"},
      {"vq_groups", 3, "vq_groups = 3 does not divide"},
      {"tie_word_embeddings", true, "to tie"},
  };
  for (const Case& c : cases) {
    nlohmann::json bad = good;
    bad[c.key] = c.value;
    write_bytes(config, bad.dump());
    EXPECT_THAT(error_of([&] { open_hf_model(folder.file("hf")); }),
                AllOf(HasSubstr(folder.path()), HasSubstr(c.words)));
  }
  write_bytes(config, "{");
  EXPECT_THAT(error_of([&] { open_hf_model(folder.file("hf")); }), HasSubstr("no JSON object"));
  std::filesystem::remove(config);
  EXPECT_THAT(error_of([&] { open_hf_model(folder.file("hf")); }), HasSubstr("has no config.json"));
}

TEST(HfModel, RopeParametersOfNewerFilesMeanTheSame) {
  const TinySource source(config_of(HeadKind::dense, false));
  const TemporaryFolder folder;
  write_hf(source, folder.file("hf"), {});
  nlohmann::json json = read_json(folder.file("hf/config.json"));
  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = 5e5;
  json.erase("rope_scaling");
  json.erase("rope_theta");
  write_bytes(folder.file("hf/config.json"), json.dump());
  const auto model = open_hf_model(folder.file("hf"));
  EXPECT_EQ(model->model().rope_theta, 5e5f);
  EXPECT_EQ(model->model().rope_scaling.factor, 8);
}

}  // namespace
}  // namespace vqlm
