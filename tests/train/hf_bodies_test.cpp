// Folders of other bodies than Llama's, in and out: log-probabilities against transformers' (tests/hf_bodies), what is written
// comes back, what no class computes and what is not supported is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "data/hdf5/h5.h"
#include "dist/process_grid.h"
#include "tests/train/saved_model.h"
#include "tests/train/tiny_model.h"
#include "train/models/hf_model.h"
#include "train/models/loaded_model.h"
#include "train/models/replaced_head.h"
#include "train/tools/convert/hf_writer.h"

namespace vqlm {
namespace {

using testing::bytes_of;
using ::testing::HasSubstr;
using testing::tiny_model_config;

std::filesystem::path folder_of(const std::string& name) {
  return std::filesystem::path(VQLM_SOURCE_DIR) / "tests/hf_bodies" / name;
}

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// The largest difference to the golden's log-probabilities.
double distance_to_golden(const ModelSource& source, const std::string& name) {
  const h5::File golden = h5::File::open((folder_of(name) / "golden.h5").string());
  auto ids = golden.dataset("ids").read_all<std::int32_t>();
  const auto expected = golden.dataset("log_probs").read_all<double>();
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const auto rows = static_cast<std::int64_t>(ids.size());
  const LoadedModel loaded = load_model(source, *backend, grid.tensor(), BatchShape{2, rows / 2});
  const std::int64_t vocabulary = source.model().vocab_size;
  std::vector<float> out(static_cast<std::size_t>(rows * vocabulary));
  EXPECT_EQ(out.size(), expected.size());
  loaded.transformer->log_probs(Tensor(out.data(), DType::f32, {rows, vocabulary}),
                                Tensor(ids.data(), DType::i32, {rows}));
  double largest = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(out[i]) - expected[i]));
  return largest;
}

class HfBodies : public ::testing::TestWithParam<const char*> {};

TEST_P(HfBodies, LogProbabilitiesAreThoseOfTransformers) {
  const auto source = open_hf_model(folder_of(GetParam()));
  EXPECT_LT(distance_to_golden(*source, GetParam()), 1e-4);
}

TEST_P(HfBodies, WhatIsWrittenIsTheSameModel) {
  const auto source = open_hf_model(folder_of(GetParam()));
  const TemporaryFolder folder;
  write_hf(*source, folder.file("hf"), {});
  const auto back = open_hf_model(folder.file("hf"));
  EXPECT_EQ(back->description(), source->description());
  Config was, is;
  was.model = source->model();
  is.model = back->model();
  was.head = is.head = source->head();
  EXPECT_EQ(to_toml(is), to_toml(was));
  EXPECT_LT(distance_to_golden(*back, GetParam()), 1e-4);  // Gemma's gains are rounded once more
}

INSTANTIATE_TEST_SUITE_P(Families, HfBodies,
                         ::testing::Values("qwen2", "qwen3", "qwen3_windows", "smollm3", "olmo2", "gemma3", "mistral"),
                         [](const auto& test) { return std::string(test.param); });

TEST(HfBody, NamesWhatIsNotSupported) {
  struct Case {
    const char* family;
    const char* key;
    nlohmann::json value;
    const char* words;
  };
  const Case cases[] = {
      {"qwen3", "attention_bias", true, "attention_bias = true is not supported"},
      {"qwen3", "final_logit_softcapping", 30.0, "final_logit_softcapping = 30.0 is not supported"},
      {"gemma3", "final_logit_softcapping", -30.0, "final_logit_softcapping = -30.0 must be a positive number"},
      {"gemma3", "attn_logit_softcapping", 50.0, "attn_logit_softcapping = 50.0 is not supported"},
      {"gemma3", "use_bidirectional_attention", true, "use_bidirectional_attention = true is not supported"},
      {"gemma3", "hidden_activation", "silu", "hidden_activation = \"silu\" is not supported: only gelu_pytorch_tanh"},
      {"gemma3", "layer_types", {"full_attention"}, "has another length than num_hidden_layers = 4"},
      {"qwen3_windows",
       "layer_types",
       {"full_attention", "sliding_attention", "sliding_attention", "full_attention"},
       "only layers that are the last of every n"},
      {"qwen3_windows", "layer_types", nullptr, "use_sliding_window = true needs layer_types"},
      {"smollm3", "no_rope_layers", {1, 1}, "is shorter than num_hidden_layers = 4"},
      {"smollm3", "no_rope_layers", {1, 0, 0, 1}, "only layers that are the last of every n"},
      {"olmo2", "sliding_window", 5, "sliding_window = 5 is not supported"},
      {"olmo2", "model_type", "olmo3", "model_type = \"olmo3\" is not supported: only llama, mistral, qwen2"},
      {"qwen3", "head_dim", 7, "head_dim = 7 is odd"},
  };
  for (const Case& c : cases) {
    const TemporaryFolder folder;
    std::filesystem::copy(folder_of(c.family), folder.file("hf"));
    nlohmann::json config = nlohmann::json::parse(read_bytes(folder.file("hf/config.json")));
    config[c.key] = c.value;
    write_bytes(folder.file("hf/config.json"), config.dump());
    EXPECT_THAT(error_of([&] { open_hf_model(folder.file("hf")); }), HasSubstr(c.words)) << c.family << " " << c.key;
  }
}

TEST(HfBody, GemmasClassCapsLogits) {
  const TemporaryFolder folder;
  std::filesystem::copy(folder_of("gemma3"), folder.file("hf"));
  nlohmann::json config = nlohmann::json::parse(read_bytes(folder.file("hf/config.json")));
  config["final_logit_softcapping"] = 30.0;
  write_bytes(folder.file("hf/config.json"), config.dump());
  const auto source = open_hf_model(folder.file("hf"));
  EXPECT_EQ(softcap_of(source->head()), 30);
  write_hf(*source, folder.file("back"), {});
  EXPECT_FALSE(std::filesystem::exists(folder.file("back/modeling_vqlm.py")));
  EXPECT_EQ(nlohmann::json::parse(read_bytes(folder.file("back/config.json")))["final_logit_softcapping"], 30.0);
  EXPECT_EQ(softcap_of(open_hf_model(folder.file("back"))->head()), 30);
}

TEST(HfBody, OlderFilesOfGemmaSayTheSame) {
  const TemporaryFolder folder;
  std::filesystem::copy(folder_of("gemma3"), folder.file("hf"));
  nlohmann::json config = nlohmann::json::parse(read_bytes(folder.file("hf/config.json")));
  config.erase("rope_parameters");
  config.erase("layer_types");
  config["rope_theta"] = 1e5;
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  config["rope_local_base_freq"] = 1e3;
  config["sliding_window_pattern"] = 3;
  write_bytes(folder.file("hf/config.json"), config.dump());
  EXPECT_LT(distance_to_golden(*open_hf_model(folder.file("hf")), "gemma3"), 1e-4);
}

TEST(HfBody, ABodyThatNoClassComputesIsRefused) {
  Config config = tiny_model_config(HeadKind::dense);
  config.model.qk_norm = QkNorm::width;
  const testing::Saved saved(config);
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { write_hf(saved.source(), folder.file("hf"), {}); }),
              HasSubstr("no class of transformers computes this body (Llama's but for qk_norm width); --to npz"));
}

TEST(HfBody, OurHeadsGoOnTopOfOtherBodies) {
  Config config = tiny_model_config(HeadKind::vq);
  config.model.qk_norm = QkNorm::head;
  config.model.head_width = 12;
  const testing::Saved saved(config);
  const TemporaryFolder folder;
  write_hf(saved.source(), folder.file("hf"), {});
  EXPECT_THAT(read_bytes(folder.file("hf/modeling_vqlm.py")), HasSubstr("class VqlmForCausalLM(Qwen3ForCausalLM)"));
  EXPECT_THAT(read_bytes(folder.file("hf/configuration_vqlm.py")), HasSubstr("class VqlmConfig(Qwen3Config)"));
  const auto back = open_hf_model(folder.file("hf"));
  EXPECT_EQ(back->model().head_width, 12);
  EXPECT_EQ(back->model().qk_norm, QkNorm::head);
  for (const ModelSource::TensorInfo& tensor : saved.source().tensors())
    EXPECT_EQ(bytes_of(read_whole(saved.source(), tensor.name)), bytes_of(read_whole(*back, tensor.name)))
        << tensor.name;
}

}  // namespace
}  // namespace vqlm
