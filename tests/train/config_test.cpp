// The configuration: round trip, overrides, and every refusal with its message.
#include "train/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "core/home_path.h"
#include "tests/train/config_errors.h"
#include "train/config/nearest_name.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ConfigTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    const auto path = std::filesystem::path(testing::TempDir()) /
                      (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".toml");
    std::ofstream(path) << text;
    return path;
  }
};

/// Lines of to_toml that are not those of `base`, which has the same keys.
std::vector<std::string> changed_lines(const Config& config, const Config& base) {
  std::istringstream lines(to_toml(config));
  std::istringstream base_lines(to_toml(base));
  std::vector<std::string> changed;
  for (std::string line, other; std::getline(lines, line) && std::getline(base_lines, other);) {
    if (line != other) changed.push_back(line);
  }
  return changed;
}

/// Choices, and values of the keys that are there with them, none the default.
struct Keys {
  std::vector<std::string> choices;
  std::vector<std::string> values;
};

TEST_F(ConfigTest, WhatNobodySaysIsAsInTheBase) {
  Config base = load_config({}, {"model.d_model=96", "model.rope_theta=500", "head.kind=dense", "head.bias=false"});
  const Config same = load_config(write("[model]\nn_layers = 3\n"), {"optim.lr=0.5"}, base);
  EXPECT_EQ(same.model.d_model, 96);
  EXPECT_EQ(same.model.rope_theta, 500);
  EXPECT_EQ(same.model.n_layers, 3);
  EXPECT_EQ(same.optim.lr, 0.5f);
  EXPECT_EQ(kind_of(same.head), HeadKind::dense);
  EXPECT_FALSE(has_bias(same.head));
  EXPECT_FALSE(has_bias(load_config(write("[head]\nkind = \"dense\"\n"), {}, base).head));  // said again
  const Config other = load_config({}, {"head.kind=vq"}, base);
  EXPECT_EQ(kind_of(other.head), HeadKind::vq);
  EXPECT_TRUE(has_bias(other.head));  // a head of its own
}

TEST_F(ConfigTest, EveryKeySurvivesWritingAndReading) {
  // Each value differs from its default, so a key that is not written or not read shows; 0.1f and 3e-4f have no exact
  // decimal form.
  const std::vector<Keys> all = {
      {{},
       {
           "model.vocab_size=999",
           "model.d_model=96",
           "model.n_layers=3",
           "model.n_heads=6",
           "model.n_kv_heads=2",
           "model.d_ff=300",
           "model.rope_theta=500000",
           "model.rope_scaling=llama3",
           "model.rope_factor=8",
           "model.rope_low_freq_factor=2",
           "model.rope_high_freq_factor=5",
           "model.rope_original_positions=4096",
           "model.norm_eps=1e-6",
           "head.bias=false",
           "head.clusters=17",
           "head.map=maps/\"odd\" name\\.h5",
           "head.own_tokens=3",
           "head.member_mean=false",
           "head.input_codes=false",
           "data.train=shards/train-*.h5",
           "data.heldout=shards/heldout-*.h5",
           "data.seq_len=77",
           "data.counted_text=all",
           "train.steps=12345678901",
           "train.global_batch=24",
           "train.micro_batch=3",
           "train.seed=9007199254740991",
           "train.grad_clip=0.3",
           "train.max_skipped_steps=4",
           "train.check_replicas_every=25",
           "train.precision=bf16",
           "train.recompute=block",
           "train.eval_every=50",
           "train.eval_tokens=4096",
           "optim.lr=3e-4",
           "optim.embedding_lr_ratio=2",
           "optim.blocks_lr_ratio=3",
           "optim.head_lr_ratio=0.5",
           "optim.tables_lr_ratio=0.25",
           "optim.gains_lr_ratio=5",
           "input.tables=[{order=2,rows=9},{order=3,rows=7}]",
           "optim.input_tables_lr_ratio=3",
           "optim.input_tables_decay_ratio=0.5",
           "optim.input_tables_update=dense",
           "optim.embedding_decay_ratio=0",
           "optim.embedding_update=rows",
           "optim.blocks_decay_ratio=2",
           "optim.head_decay_ratio=0.7",
           "optim.tables_decay_ratio=0.1",
           "optim.gains_decay_ratio=1",
           "optim.beta1=0.85",
           "optim.beta2=0.999",
           "optim.eps=1e-9",
           "optim.weight_decay=0.01",
           "optim.schedule=wsd",
           "optim.warmup_steps=7",
           "optim.min_lr_ratio=0.07",
           "optim.decay_fraction=0.33",
           "parallel.data=2",
           "parallel.tensor=4",
           "parallel.overlap=false",
           "parallel.nccl_max_ctas=12",
           "parallel.heartbeat_seconds=7",
           "parallel.timeout_seconds=30",
           "checkpoint.every=500",
           "checkpoint.keep=9",
           "checkpoint.keep_every=10000",
           "checkpoint.max_failed_saves=3",
           "run.dir=runs/x",
           "run.name=7\t",
           "run.device=cpu",
           "run.threads=5",
           "run.log_every=3",
           "run.cuda_graphs=false",
           "run.dependent_launch=false",
           "run.products_file=products.json",
           "run.began_from=runs/y",
           "run.head_since=9",
           "run.counted_samples=77",
       }},
      {{"head.kind=dense"}, {"model.tie_embeddings=true", "head.z_loss=1e-4", "head.softcap=30"}},
      {{},
       {"model.head_dim=48", "model.attention_bias=true", "model.qk_norm=width", "model.norm_placement=both",
        "model.activation=geglu", "model.zero_init_outputs=true", "model.nope_every=4", "model.embedding_scale=16",
        "model.attention_scale=100", "model.window=512", "model.window_pattern=6", "model.window_rope_theta=1e4",
        "model.document_end=3", "data.document_mask=true"}},
      {{}, {"head.future=2", "head.future_weight=0.1"}},
      {{"head.kind=low_rank"}, {"head.rank=9"}},
      {{"head.kind=adaptive"}, {"head.cutoffs=[7, 30]", "head.tail_ratio=3"}},
      {{"optim.kind=muon"}, {"optim.muon_momentum=0.9"}},
      {{"head.members=codes", "head.learning=ema"},
       {"head.groups=4", "head.codes=31", "head.commitment=0.1", "head.ema_decay=0.95"}},
  };
  std::set<std::string> names;
  for (const auto& [choices, values] : all) {
    const Config base = load_config({}, choices);
    std::vector<std::string> together = choices;
    for (const std::string& value : choices) names.insert(value.substr(0, value.find('=')));
    for (const std::string& value : values) {  // each key alone, so that no two share a member
      std::vector<std::string> alone = choices;
      alone.push_back(value);
      together.push_back(value);
      const std::vector<std::string> changed = changed_lines(load_config({}, alone), base);
      ASSERT_EQ(changed.size(), 1u) << value;
      const std::size_t dot = value.find('.'), equals = value.find('=');
      EXPECT_EQ(changed[0].substr(0, equals - dot + 2), value.substr(dot + 1, equals - dot - 1) + " = ");
      names.insert(value.substr(0, equals));
    }
    const Config config = load_config({}, together);
    EXPECT_EQ(changed_lines(config, base).size(), values.size());
    const std::string text = to_toml(config);
    EXPECT_EQ(to_toml(load_config(write(text))), text);
  }
  std::istringstream described(describe_keys());
  std::size_t keys = 0;  // "section.name"; the fields of [[data.mix]] have no dot
  for (std::string line; std::getline(described, line);) {
    const std::size_t dot = line.find('.'), space = line.find(' ', 2);
    if (line.starts_with("  ") && dot < space) ++keys;
  }
  EXPECT_EQ(names.size(), keys);
  const Config again = load_config(write(to_toml(load_config({}, all[0].values))));
  EXPECT_EQ(again.optim.lr, 3e-4f);
  EXPECT_EQ(again.optim.min_lr_ratio, 0.07f);
  EXPECT_EQ(std::get<VqHeadConfig>(again.head).map, "maps/\"odd\" name\\.h5");
  EXPECT_EQ(again.run.name, "7\t");
  EXPECT_EQ(again.train.steps, 12345678901);
}

TEST_F(ConfigTest, OverridesWinOverTheFileAndTheLastOneWins) {
  const auto path = write("[train]\nsteps = 5\nmicro_batch = 2\n");
  const Config config = load_config(path, {"train.steps=6", "train.steps=7"});
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.train.micro_batch, 2);
  EXPECT_EQ(config.train.global_batch, Config{}.train.global_batch);
}

TEST_F(ConfigTest, UnknownKeysAreRefusedWithTheNearest) {
  EXPECT_THAT(override_error("model.dmodel=3"),
              AllOf(HasSubstr("unknown key model.dmodel"), HasSubstr("nearest known key is model.d_model")));
  EXPECT_THAT(override_error("otpim.lr=3"), HasSubstr("optim.lr"));
  EXPECT_THAT(override_error("train.steps"), HasSubstr("section.key=value"));
  const auto path = write("[train]\nsteps = 5\n[optim]\nlearning_rate = 1\n");
  EXPECT_THAT(usage_error([&] { load_config(path); }), AllOf(HasSubstr(":4: "), HasSubstr("optim.learning_rate")));
  const auto loose = write("steps = 5\n");
  EXPECT_THAT(usage_error([&] { load_config(loose); }), HasSubstr("unknown key steps"));
  const auto quoted = write("\"train.steps\" = 5\n");
  EXPECT_THAT(usage_error([&] { load_config(quoted); }), HasSubstr("without quotes"));
}

TEST_F(ConfigTest, ValuesOfAnotherTypeOrOutOfRangeAreRefused) {
  EXPECT_THAT(override_error("train.steps=abc"), AllOf(HasSubstr("train.steps = \"abc\""), HasSubstr("whole number")));
  EXPECT_THAT(override_error("train.steps=1.5"), HasSubstr("whole number"));
  EXPECT_THAT(override_error("train.steps="), HasSubstr("whole number"));
  EXPECT_THAT(override_error("train.steps=0"), AllOf(HasSubstr("train.steps = 0"), HasSubstr("from 1")));
  EXPECT_THAT(override_error("optim.lr=0"), HasSubstr("above 0"));
  EXPECT_THAT(override_error("model.rope_factor=0.5"), HasSubstr("from 1"));
  EXPECT_THAT(override_error("model.rope_scaling=yarn"), HasSubstr("none, linear, llama3"));
  EXPECT_THAT(override_error("optim.lr=nan"), HasSubstr("out of range"));
  EXPECT_THAT(override_error("optim.beta1=1"), HasSubstr("out of range"));
  EXPECT_THAT(override_error("head.clusters=0"), HasSubstr("from 1 to"));
  EXPECT_THAT(override_error("head.kind=vector"), HasSubstr("dense, vq"));
  EXPECT_THAT(override_error("head.bias=1"), HasSubstr("true or false"));
  const auto path = write("[data]\ntrain = ['a', 'b']\n");
  EXPECT_THAT(usage_error([&] { load_config(path); }), AllOf(HasSubstr(":2: data.train"), HasSubstr("single value")));
  const auto number = write("[data]\ntrain = 5\n");
  EXPECT_THAT(usage_error([&] { load_config(number); }), HasSubstr("must be a string"));
}

TEST_F(ConfigTest, FilesThatCannotBeReadOrAreNotToml) {
  EXPECT_THROW(load_config("/nowhere/a.toml"), Error);
  const auto path = write("[train]\nsteps = = 5\n");
  EXPECT_THAT(usage_error([&] { load_config(path); }), AllOf(HasSubstr(path.string() + ":2"), HasSubstr("TOML")));
}

TEST_F(ConfigTest, ResolveFillsInWhatIsLeft) {
  Config config = load_config({}, {"model.d_model=256", "parallel.tensor=2", "run.dir=runs/a/"});
  resolve(config, 1000, 4);
  EXPECT_EQ(config.model.vocab_size, 1000);
  EXPECT_EQ(config.model.n_kv_heads, config.model.n_heads);
  EXPECT_EQ(config.model.d_ff, 704);  // 8/3 * 256 = 682.67
  EXPECT_EQ(config.parallel.data, 2);
  EXPECT_EQ(config.run.name, "a");
  Config at_home = load_config({}, {"run.dir=~/a", "head.map=~/map.h5"});
  resolve(at_home, 1000, 1);
  EXPECT_EQ(at_home.run.dir, expand_home("~/a"));
  EXPECT_EQ(std::get<VqHeadConfig>(at_home.head).map, expand_home("~/map.h5"));
  const std::string text = to_toml(config);
  resolve(config, 1000, 4);  // a resolved configuration, as a run folder holds it
  EXPECT_EQ(to_toml(config), text);
}

TEST_F(ConfigTest, KeysAreCheckedAgainstEachOther) {
  EXPECT_EQ(resolve_error({}), "");
  EXPECT_EQ(resolve_error({"model.vocab_size=1024"}), "");  // padded
  EXPECT_THAT(resolve_error({"run.dir=caf\xE9"}), AllOf(HasSubstr("dir = \"caf\xE9\""), HasSubstr("not UTF-8")));
  EXPECT_EQ(resolve_error({"run.dir=caf\xC3\xA9\n"}), "");
  EXPECT_THAT(resolve_error({"model.vocab_size=999"}), AllOf(HasSubstr("999"), HasSubstr("1000")));
  EXPECT_THAT(resolve_error({"model.n_heads=3"}), AllOf(HasSubstr("d_model = 256"), HasSubstr("n_heads = 3")));
  EXPECT_THAT(resolve_error({"model.d_model=12"}), HasSubstr("odd head width 3"));
  EXPECT_THAT(resolve_error({"model.n_kv_heads=3"}), HasSubstr("choose n_kv_heads = 2"));
  EXPECT_THAT(resolve_error({"model.rope_factor=8"}),
              AllOf(HasSubstr("model.rope_factor = 8"), HasSubstr("model.rope_scaling = \"none\"")));
  EXPECT_EQ(resolve_error({"model.rope_factor=8", "model.rope_scaling=llama3"}), "");
  EXPECT_EQ(resolve_error({"model.rope_scaling=linear", "model.rope_low_freq_factor=5"}), "");
  EXPECT_THAT(resolve_error({"model.rope_scaling=llama3", "model.rope_low_freq_factor=4"}),
              AllOf(HasSubstr("rope_low_freq_factor = 4"), HasSubstr("rope_high_freq_factor = 4")));
  EXPECT_THAT(resolve_error({"train.global_batch=12"}), HasSubstr("choose global_batch = 16"));
  EXPECT_THAT(resolve_error({"optim.warmup_steps=1001"}), HasSubstr("warmup_steps <= 1000"));
  EXPECT_THAT(resolve_error({"optim.schedule=wsd", "optim.warmup_steps=801"}), HasSubstr("warmup_steps <= 800"));
}

TEST_F(ConfigTest, GpuHasThreeWidthsOfHeads) {
  Config config;
  config.model.d_model = 192;
  for (const int heads : {6, 3}) {  // 32, 64
    config.model.n_heads = heads;
    EXPECT_NO_THROW(check_device(config, DType::bf16));
  }
  config.model.n_heads = 12;
  EXPECT_NO_THROW(check_device(config, DType::f32));
  try {
    check_device(config, DType::bf16);
    ADD_FAILURE() << "heads 16 wide were accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("heads 16 wide"));
    EXPECT_THAT(error.what(), HasSubstr("model.n_heads = 3 or 6"));
  }
}

TEST_F(ConfigTest, PrecisionIsWhatTheDeviceComputesIn) {
  Config config;
  config.model.d_model = 128;
  config.model.n_heads = 4;
  for (const DType activation : {DType::f32, DType::bf16}) EXPECT_NO_THROW(check_device(config, activation));
  config.train.precision = Precision::bf16;
  EXPECT_NO_THROW(check_device(config, DType::bf16));
  EXPECT_THROW(check_device(config, DType::f32), UsageError);
  config.train.precision = Precision::fp32;
  EXPECT_NO_THROW(check_device(config, DType::f32));
  EXPECT_THROW(check_device(config, DType::bf16), UsageError);
}

TEST_F(ConfigTest, SizesMustDivideOverTheGrid) {
  EXPECT_EQ(resolve_error({"parallel.tensor=4"}, 4), "");
  EXPECT_NE(resolve_error({"parallel.tensor=2"}, 3), "");
  EXPECT_NE(resolve_error({"parallel.data=2", "parallel.tensor=2"}, 2), "");
  EXPECT_THAT(resolve_error({"model.d_model=384", "model.n_heads=6", "parallel.tensor=4"}, 4),
              AllOf(HasSubstr("n_heads = 6 does not divide over parallel.tensor = 4"),
                    HasSubstr("choose n_heads = 8 or tensor = 3")));
  EXPECT_THAT(resolve_error({"model.n_kv_heads=2", "parallel.tensor=4"}, 4), HasSubstr("n_kv_heads = 2"));
  EXPECT_THAT(resolve_error({"model.d_ff=701", "parallel.tensor=2"}, 2), HasSubstr("d_ff = 701"));
  EXPECT_THAT(resolve_error({"train.micro_batch=1", "data.seq_len=511", "parallel.tensor=2"}, 2),
              HasSubstr("choose seq_len = 512"));
}

TEST_F(ConfigTest, TheConfigurationsOfTheRepositoryAreRead) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(VQLM_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".toml") continue;  // ablation-heads.txt is a script's
    Config config = load_config(entry.path());
    config.parallel.data = 0;
    EXPECT_NO_THROW(resolve(config, 50257, config.parallel.tensor)) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 7);
}

TEST(NearestName, CountsEditsAndNeighbourSwaps) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("trian", "train"), 1);
  EXPECT_EQ(nearest_name("trian", {"report", "eval", "train"}), "train");
  EXPECT_EQ(nearest_name("x", {}), "");
}

}  // namespace
}  // namespace vqlm
