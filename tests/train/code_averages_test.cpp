// Codes that are moving averages (head.learning = "ema"): whole steps against sums in double precision, and what checkpoints
// and models that start a run make of them.
#include "core/model/head/code_averages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/train/tiny_checkpoint.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/engine/planned_model.h"
#include "train/models/model_info.h"
#include "train/tools/convert/npz.h"

namespace vqlm {
namespace {

using testing::bytes_of;
using ::testing::HasSubstr;
using testing::save_tiny;
using testing::TinyModel;
using testing::vq;

constexpr double u32 = 0x1p-24;

ParameterId find(const ParameterStore& store, const std::string& name) {
  for (std::size_t id = 0; id < store.parameters().size(); ++id) {
    if (store.parameters()[id].name == name) return static_cast<ParameterId>(id);
  }
  throw Error("no parameter " + name);
}

std::vector<double> values_of(ParameterStore& store, const std::string& name) {
  const Tensor x = store.value(find(store, name));
  return {x.f32(), x.f32() + x.numel()};
}

Config averaged_config() {
  Config config = testing::tiny_model_config(HeadKind::vq);
  testing::vq(config).learning = EmaLearningConfig{.ema_decay = 0.75f};
  config.train.grad_clip = 0.1f;  // every step is clipped, which averages must not feel
  return config;
}

// Entries of h are below 4 = sqrt(d), so a sum of up to 32 of them and its average are below 128; each of 6 steps adds
// at most 32 additions and 3 roundings of the average.
constexpr double sum_bound = 6 * 35 * 128 * u32;

/// A tiny model in training, and its averages in double precision.
class Averaged {
 public:
  explicit Averaged(const Config& config) : tiny_(config), d_(config.model.d_model) {
    std::vector<std::int64_t> counts(61);
    for (std::size_t v = 0; v < counts.size(); ++v) counts[v] = static_cast<std::int64_t>(1000 / (v + 1));
    tiny_.model().initialize(3, counts);
    sums_ = values_of(store(), "vq_head.ema_sums");
    counts_ = values_of(store(), "vq_head.ema_counts");
  }

  ParameterStore& store() { return tiny_.store(); }
  TinyModel& tiny() { return tiny_; }

  /// One step of two micro-batches; returns the norm that the optimizer saw.
  double step(std::int64_t number) {
    std::vector<double> sums(sums_.size(), 0.0), counts(counts_.size(), 0.0);
    store().begin_gradients();
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) accumulate(number, micro_batch, sums, counts);
    tiny_.optimizer().finish_reductions();
    squares_ = gradient_squares();
    const double norm = tiny_.optimizer().step(number, 1e-2f);
    const double decay = static_cast<double>(std::get<EmaLearningConfig>(vq(tiny_.config()).learning).ema_decay);
    for (std::size_t i = 0; i < sums.size(); ++i) sums_[i] = decay * sums_[i] + (1 - decay) * sums[i];
    for (std::size_t k = 0; k < counts.size(); ++k) counts_[k] = decay * counts_[k] + (1 - decay) * counts[k];
    return norm;
  }
  void finish() { tiny_.model().head().after_update(); }

  const std::vector<double>& sums() const { return sums_; }
  const std::vector<double>& counts() const { return counts_; }
  double gradient_squares_before_step() const { return squares_; }

 private:
  void accumulate(std::int64_t number, int micro_batch, std::vector<double>& sums, std::vector<double>& counts) {
    const Philox rng(static_cast<std::uint64_t>(number), "ids");
    std::vector<std::int32_t> ids(32);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto drawn = rng.below(static_cast<std::uint64_t>(micro_batch) * 64 + i, 61);
      ids[i] = static_cast<std::int32_t>(drawn * drawn / 61);
    }
    ids[20] = -1;  // a row without target
    std::vector<float> losses(32);
    const auto tensor = [](auto* data, DType dtype) { return Tensor(data, dtype, {16}); };
    tiny_.model().accumulate_gradients(tensor(losses.data(), DType::f32), tensor(losses.data() + 16, DType::f32),
                                       tensor(ids.data(), DType::i32), tensor(ids.data() + 16, DType::i32), 1.0f / 31,
                                       [&](int bucket) {
                                         if (micro_batch == 1) tiny_.optimizer().bucket_ready(bucket);
                                       });
    const float* const h = tiny_.model().hidden().f32();
    for (std::size_t n = 0; n < 16; ++n) {
      if (ids[16 + n] < 0) continue;
      const auto k = static_cast<std::size_t>(tiny_.map()->cluster_of_token[static_cast<std::size_t>(ids[16 + n])]);
      counts[k] += 1;
      for (std::size_t i = 0; i < d(); ++i) sums[k * d() + i] += static_cast<double>(h[n * d() + i]);
      expect_commitment(losses[16 + n], h + n * d(), k);
    }
  }
  /// beta / d |h - M / N|^2 with the averages before this step.
  void expect_commitment(float penalty, const float* h, std::size_t k) {
    const double rate = static_cast<double>(vq(tiny_.config()).commitment()) / static_cast<double>(d());
    const double error = sum_bound / counts_[k];
    double expected = 0, bound = 0;
    for (std::size_t i = 0; i < d(); ++i) {
      const double difference = static_cast<double>(h[i]) - sums_[k * d() + i] / counts_[k];
      expected += rate * difference * difference;
      bound += rate * (2 * std::abs(difference) * error + error * error);
    }
    EXPECT_NEAR(static_cast<double>(penalty), expected, bound + 32 * u32 * expected);
  }
  std::size_t d() const { return static_cast<std::size_t>(d_); }
  double gradient_squares() {
    double squares = 0;
    for (std::size_t id = 0; id < store().parameters().size(); ++id) {
      if (store().parameters()[id].rule != UpdateRule::gradient) continue;
      const Tensor g = store().gradient(static_cast<ParameterId>(id));
      for (std::int64_t i = 0; i < g.numel(); ++i)
        squares += static_cast<double>(g.f32()[i]) * static_cast<double>(g.f32()[i]);
    }
    return squares;
  }

  TinyModel tiny_;
  std::int64_t d_;
  std::vector<double> sums_, counts_;
  double squares_ = 0;
};

TEST(CodeAveragesTraining, EqualSumsInDoublePrecision) {
  Averaged training(averaged_config());
  for (std::int64_t step = 1; step <= 6; ++step) {
    SCOPED_TRACE(step);
    const double norm = training.step(step);
    EXPECT_NEAR(norm, std::sqrt(training.gradient_squares_before_step()), 1e-9 * norm);
    EXPECT_GT(norm, 0.1);  // it was clipped
    training.finish();
    const std::vector<double> sums = values_of(training.store(), "vq_head.ema_sums");
    const std::vector<double> counts = values_of(training.store(), "vq_head.ema_counts");
    const std::vector<double> codebook = values_of(training.store(), "vq_head.codebook");
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const std::size_t k = i / 16;
      EXPECT_NEAR(sums[i], training.sums()[i], sum_bound) << i;
      EXPECT_NEAR(counts[k], training.counts()[k], 18 * u32 * training.counts()[k]) << k;
      const double code = static_cast<double>(code_scale(16)) * training.sums()[i] / training.counts()[k];
      EXPECT_NEAR(codebook[i], code, (sum_bound / training.counts()[k]) + 24 * u32 * std::abs(code)) << i;
    }
  }
}

TEST(CodeAveragesTraining, StartWhereTheCodebookIs) {
  Averaged training(averaged_config());
  const std::vector<double> before = values_of(training.store(), "vq_head.codebook");
  training.finish();
  const std::vector<double> after = values_of(training.store(), "vq_head.codebook");
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(after[i], before[i], 6 * u32 * std::abs(before[i])) << i;
}

TEST(CodeAveragesTraining, ACheckpointHoldsAveragesAndAModelDoesNot) {
  Averaged training(averaged_config());
  training.step(1);
  training.finish();
  const TemporaryFolder folder;
  const auto path = save_tiny(training.tiny(), folder.file("run"), {.step = 1, .samples = 4, .tokens = 32});
  const CheckpointReader reader(path, Verify::yes);
  TinyModel other(averaged_config());
  load_parameters(reader, other.store());
  reader.load_training_state(other.backend(), other.store(), other.optimizer());
  EXPECT_EQ(bytes_of(other.store().flat_values()), bytes_of(training.store().flat_values()));
  EXPECT_FALSE(h5::File::open((path / "checkpoint.h5").string()).exists("optimizer.m.vq_head.codebook"));

  for (const ModelSource::TensorInfo& tensor : reader.tensors()) EXPECT_EQ(tensor.name.find("ema"), std::string::npos);
  EXPECT_THAT(model_info(reader), HasSubstr("vq_head.codebook"));
  write_npz(reader, folder.file("model.npz"));
  // Evaluation needs none.
  Transformer evaluated(
      training.tiny().backend(), training.tiny().grid().tensor(),
      {.model = reader.model(), .head = reader.head(), .batch = {2, 8}, .purpose = Purpose::evaluation},
      training.tiny().map());
  load_parameters(reader, evaluated.parameters());
  EXPECT_EQ(values_of(evaluated.parameters(), "vq_head.codebook"), values_of(training.store(), "vq_head.codebook"));
}

TEST(CodeAveragesTraining, ARunThatStartsFromAModelKeepsItsCodes) {
  Averaged training(averaged_config());
  training.step(1);
  training.finish();
  const TemporaryFolder folder;
  const CheckpointReader source(save_tiny(training.tiny(), folder.file("run"), {.step = 1, .samples = 4, .tokens = 32}),
                                Verify::yes);
  TinyModel started(averaged_config());
  load_parameters(source, started.store());
  started.model().head().start_averages(std::vector<std::int64_t>(61, 10));
  started.model().head().after_update();
  const std::vector<double> expected = values_of(training.store(), "vq_head.codebook");
  const std::vector<double> codes = values_of(started.store(), "vq_head.codebook");
  for (std::size_t i = 0; i < codes.size(); ++i)
    EXPECT_NEAR(codes[i], expected[i], 6 * u32 * std::abs(expected[i])) << i;
}

TEST(CodeAveragesTraining, ResumingWithAnotherLearningIsRefused) {
  log::set_level(log::level::warn);
  const TemporaryFolder folder;
  testing::write_zipf_shards(folder.path(), "train", 40);
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  for (const CodebookLearning first : {CodebookLearning::ema, CodebookLearning::gradient}) {
    Config config = testing::tiny_config(HeadKind::vq, folder.path(),
                                         folder.file(first == CodebookLearning::ema ? "ema" : "gradient"));
    config.data.heldout.clear();
    config.train.steps = 4;
    testing::vq(config).learning = testing::learning_by(first);
    testing::train_run(*backend, grid, config, false, 2);
    testing::vq(config).learning =
        testing::learning_by(first == CodebookLearning::ema ? CodebookLearning::commitment : CodebookLearning::ema);
    try {
      testing::train_run(*backend, grid, config, true);
      ADD_FAILURE() << "went on with other state than the checkpoint's";
    } catch (const UsageError& error) {
      EXPECT_THAT(error.what(), HasSubstr("head.learning = "));
    }
  }
}

}  // namespace
}  // namespace vqlm
