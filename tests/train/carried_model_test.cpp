// Models on other maps: checkpoints of runs that once re-fitted their map while they trained, and heads that are
// carried over to the map of a file.
#include "train/models/carried_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint/manifest.h"
#include "train/codes/code_map_file.h"
#include "train/engine/evaluator.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/models/replaced_head.h"
#include "train/tools/convert/hf_writer.h"
#include "train/tools/generate/generator.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::tiny_config;
using testing::train_run;
using testing::vq;

constexpr std::int64_t vocabulary = 499;

class CarriedModelTest : public ::testing::Test {
 protected:
  CarriedModelTest() {
    log::set_level(log::level::warn);
    testing::write_zipf_shards(folder_.path(), "train", 60, vocabulary);
    testing::write_zipf_shards(folder_.path(), "heldout", 6, vocabulary);
  }

  Config config(const std::string& run) const {
    return tiny_config(HeadKind::vq, folder_.path(), fs::path(folder_.path()) / run);
  }
  Config resolved(Config config) const {
    resolve(config, vocabulary, 1);
    return config;
  }

  double heldout_loss(const ModelSource& source) {
    const ShardSet shards((fs::path(folder_.path()) / "heldout-*.h5").string());
    const LoadedModel loaded = load_model(source, *backend_, grid_.tensor(), {1, 32});  // as train.micro_batch
    return Evaluator(*backend_, grid_, *loaded.transformer, shards, 0, loaded.code_map()).run().nll;
  }

  /// The held-out loss with which a run starts from the model at `path`, and its map.
  struct Start {
    double loss = 0;
    CodeMap map;
  };
  Start start_from(const std::string& path, const Config& config) {
    TrainingRun run(*backend_, grid_, config, open_training_shards(config),
                    {.initial = path, .matmul_peak = Trainer::nobodys_peak, .keeps_records = false});
    Trainer& trainer = run.trainer();
    const ShardSet shards(config.data.heldout);
    return {Evaluator(*backend_, grid_, trainer.model(), shards, 0, trainer.map()).run().nll, *trainer.map()};
  }

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  ProcessGrid grid_{*backend_};
};

/// The configuration of a checkpoint as a version that re-fitted maps wrote it.
void make_learned(const fs::path& checkpoint) {
  const fs::path file = checkpoint / "config.toml";
  std::string text = read_bytes(file.string());
  const std::string now = "map = \"frequency\"\n";
  const std::size_t at = text.find(now);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, now.size(), "map = \"learned\"\nrefit_every = 4\nrefit_until = 8\nrefit_dims = 48\n");
  write_bytes(file.string(), text);
  const TrainState state = read_manifest(checkpoint).state;
  fs::remove(checkpoint / "manifest.json");
  write_manifest(checkpoint, state);
}

TEST_F(CarriedModelTest, CheckpointsOfLearnedMapsServeEverythingButResume) {
  train_run(*backend_, grid_, config("run"));
  const fs::path path = find_checkpoint(folder_.file("run"));
  const double before = heldout_loss(*open_model(path));
  make_learned(path);
  const auto source = open_model(path);
  EXPECT_EQ(vq(source->head()).map, "learned");

  // vqlm eval
  EXPECT_EQ(vq(resolved(source->config())).map, "learned");
  EXPECT_EQ(heldout_loss(*source), before);
  // vqlm generate
  const LoadedModel loaded = load_model(*source, *backend_, grid_.tensor(), {1, 8}, Purpose::generation, 24);
  Generator generator(*backend_, *loaded.transformer, vocabulary, {.sampling = {}, .max_tokens = 5, .end_of_text = {}});
  EXPECT_EQ(generator.run({{3, 4, 5}}).continuations.at(0).tokens.size(), 5u);
  // vqlm convert
  write_hf(*source, folder_.file("hf"), {});
  const auto converted = open_model(folder_.file("hf"));
  EXPECT_EQ(vq(converted->head()).map, "learned");
  EXPECT_EQ(heldout_loss(*converted), before);
  // vqlm train --init, with the configuration of the run and with that of another one
  for (const char* map : {"learned", "corpus"}) {
    Config next = config(std::string("next-") + map);
    vq(next).map = map;
    const Start start = start_from(folder_.file("run"), resolved(next));
    EXPECT_EQ(start.map.cluster_of_token, source->code_map()->cluster_of_token);
    EXPECT_EQ(start.loss, before);
  }

  // What starts from it is an ordinary run, which --resume takes.
  Config continued = config("continued");
  vq(continued).map = "learned";
  {
    TrainingRun run(*backend_, grid_, resolved(continued), open_training_shards(continued),
                    {.initial = folder_.file("run")});
    run.train([] { return false; });
  }
  EXPECT_GT(train_run(*backend_, grid_, config("continued"), true).first_step, 0);

  EXPECT_THAT(message_of([&] { train_run(*backend_, grid_, config("run"), true); }),
              AllOf(HasSubstr("re-fitted while it trained"), HasSubstr("--init"), HasSubstr("head.map = \"corpus\"")));
  Config fresh = config("fresh");
  vq(fresh).map = "learned";
  EXPECT_THAT(message_of([&] { train_run(*backend_, grid_, fresh); }),
              AllOf(HasSubstr("head.map = \"learned\""), HasSubstr("vqlm codes refit")));
}

std::map<std::string, std::vector<float>> tensors_of_head(const ModelSource& source) {
  std::map<std::string, std::vector<float>> tensors;
  for (const ModelSource::TensorInfo& tensor : source.tensors()) {
    if (tensor.name.starts_with("vq_head.")) tensors[tensor.name] = read_whole(source, tensor.name);
  }
  return tensors;
}

/// The map with some tokens' clusters exchanged in pairs, and clusters under other names.
CodeMap shuffled(CodeMap map) {
  for (std::size_t v = 0; v + 40 < map.cluster_of_token.size(); v += 10)
    std::swap(map.cluster_of_token[v], map.cluster_of_token[v + 40]);
  for (std::int32_t& cluster : map.cluster_of_token) cluster = static_cast<std::int32_t>((cluster + 5) % map.clusters);
  return map;
}

TEST_F(CarriedModelTest, AMapFileOfTheSameSizesTakesWhatTheHeadHasLearned) {
  Config first = config("run");
  first.train.steps = 60;
  first.optim.lr = 3e-3f;
  train_run(*backend_, grid_, first);
  const auto source = open_model(folder_.file("run"));
  const double before = heldout_loss(*source);
  const CodeMap own = source->code_map().value(), other = shuffled(own);
  save_code_map(folder_.file("own.h5"), own);
  save_code_map(folder_.file("other.h5"), other);

  Config next = config("same");
  vq(next).map = folder_.file("own.h5");
  EXPECT_EQ(start_from(folder_.file("run"), resolved(next)).loss, before);

  next = config("carried");
  vq(next).map = folder_.file("other.h5");
  const Start start = start_from(folder_.file("run"), resolved(next));
  EXPECT_EQ(start.map.cluster_of_token, other.cluster_of_token);
  EXPECT_EQ(start.map.member_codes, other.member_codes);
  const VqReplacement uncarried(*source, source->head(), other, tensors_of_head(*source));
  const double lost = heldout_loss(uncarried) - before;
  EXPECT_GT(lost, 0.3);
  EXPECT_LT(std::abs(start.loss - before), 0.1 * lost);
}

TEST_F(CarriedModelTest, RowsThatOnlyPadTheVocabularyHaveAPlaceInEveryMadeMap) {
  for (const char* map : {"corpus", "frequency", "random", "contiguous"}) {
    SCOPED_TRACE(map);
    Config padded = config(std::string("padded-") + map);
    vq(padded).map = map;
    padded.model.vocab_size = vocabulary + 27;
    padded.train.steps = 2;
    padded.optim.warmup_steps = 0;
    train_run(*backend_, grid_, padded);
    const CodeMap made = open_model(folder_.file(std::string("padded-") + map))->code_map().value();
    EXPECT_EQ(made.vocab_size, vocabulary + 27);
    EXPECT_NE(made.cluster_of_token.back(), made.cluster_of_token[vocabulary]);  // spread over the clusters
  }
  // A file of the shards' own vocabulary, for a run from the start and for one that begins with a padded model.
  CodeMap file = open_model(folder_.file("padded-frequency"))->code_map().value();
  file.vocab_size = vocabulary;
  file.cluster_of_token.resize(vocabulary);
  file.member_codes.resize(static_cast<std::size_t>(vocabulary * file.groups));
  save_code_map(folder_.file("narrow.h5"), file);
  Config from_file = config("padded-file");
  vq(from_file).map = folder_.file("narrow.h5");
  from_file.model.vocab_size = vocabulary + 27;
  from_file.train.steps = 2;
  from_file.optim.warmup_steps = 0;
  train_run(*backend_, grid_, from_file);
  const CodeMap made = open_model(folder_.file("padded-file"))->code_map().value();
  EXPECT_EQ(made.vocab_size, vocabulary + 27);
  from_file.run.dir = folder_.file("begun");
  EXPECT_EQ(start_from(folder_.file("padded-corpus"), resolved(from_file)).map.cluster_of_token, made.cluster_of_token);
}

TEST_F(CarriedModelTest, AFileThatIsGoneIsTheModelsOwnMap) {
  train_run(*backend_, grid_, config("frequency"));
  save_code_map(folder_.file("map.h5"), open_model(folder_.file("frequency"))->code_map().value());
  Config from_file = config("run");
  vq(from_file).map = folder_.file("map.h5");
  train_run(*backend_, grid_, from_file);
  fs::remove(folder_.file("map.h5"));
  const auto source = open_model(folder_.file("run"));
  from_file.run.dir = folder_.file("next");
  EXPECT_EQ(start_from(folder_.file("run"), resolved(from_file)).loss, heldout_loss(*source));
  vq(from_file).map = folder_.file("another.h5");
  from_file.run.dir = folder_.file("another");
  EXPECT_THAT(message_of([&] { start_from(folder_.file("run"), resolved(from_file)); }), HasSubstr("no such file"));
}

TEST_F(CarriedModelTest, WhatCannotBeCarriedOverIsRefused) {
  Config first = config("run");
  vq(first).learning = GradientLearningConfig{};
  vq(first).input_codes = true;
  train_run(*backend_, grid_, first);
  const CodeMap own = open_model(folder_.file("run"))->code_map().value();
  save_code_map(folder_.file("own.h5"), own);
  save_code_map(folder_.file("other.h5"), shuffled(own));
  save_code_map(folder_.file("small.h5"), make_random_map(vocabulary, 60, 8, 32, 1));
  first.run.dir = folder_.file("next");
  const auto refusal = [&](const std::string& map) {
    vq(first).map = folder_.file(map);
    return message_of([&] { start_from(folder_.file("run"), resolved(first)); });
  };
  EXPECT_THAT(refusal("other.h5"),
              AllOf(HasSubstr("other.h5"), HasSubstr("head.input_codes"), HasSubstr("\"corpus\"")));
  EXPECT_THAT(refusal("small.h5"), AllOf(HasSubstr("small.h5"), HasSubstr("head.clusters = 60")));
}

}  // namespace
}  // namespace vqlm
