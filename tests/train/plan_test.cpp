// The plan against what it plans: real runs on one rank, and numbers worked out by hand.
#include "train/engine/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/train/observed_run.h"
#include "train/engine/human_bytes.h"
#include "train/engine/planning_backend.h"
#include "train/engine/planning_communicator.h"
#include "train/tools/plan/plan_report.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using testing::learning_by;
using testing::observe_run;
using testing::set_bias;
using testing::set_groups;
using testing::tiny_config;

struct HeadCase {
  const char* name;
  HeadKind kind;
  bool tied = false;
  bool bias = true;
  int groups = 8;
  bool heldout = true;
  CodebookLearning learning = CodebookLearning::commitment;
  bool embedding = false;              // members are rows of the embedding
  bool means_and_input_codes = false;  // head.member_mean and head.input_codes
};
void PrintTo(const HeadCase& c, std::ostream* out) {
  *out << c.name;
}

Config config_of(const HeadCase& head, const std::filesystem::path& folder) {
  Config config = tiny_config(head.kind, folder, folder / "run");
  config.model.tie_embeddings = head.tied;
  set_bias(config, head.bias);
  set_groups(config, head.groups);
  if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) {
    vq->learning = learning_by(head.learning);
    if (head.embedding) vq->members = EmbeddingMembersConfig{.mean = head.means_and_input_codes};
    vq->input_codes = head.means_and_input_codes;
  }
  if (!head.heldout) config.data.heldout.clear();
  config.train.steps = 2;
  config.train.micro_batch = 3;
  config.optim.warmup_steps = 1;
  return config;
}

Config resolved(Config config, int data, int tensor, std::int64_t vocabulary = testing::tiny_vocabulary) {
  config.parallel.data = data;
  config.parallel.tensor = tensor;
  resolve(config, vocabulary, data * tensor);
  return config;
}

/// That a plan for one rank has each use of memory to the byte, after each step of a run.
void expect_memory_of_a_real_run(const Config& config) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const MemoryPlan plan = plan_memory(resolved(config, 1, 1), {.activation = DType::f32});
  int observed = 0;
  observe_run(*backend, grid, config, [&] {
    ++observed;
    for (std::size_t use = 0; use < plan.bytes.size(); ++use) {
      EXPECT_EQ(plan.bytes[use], backend->memory().in_use[use]) << memory_use_names[use];
    }
  });
  EXPECT_EQ(observed, 2);
}

class EveryHead : public ::testing::TestWithParam<HeadCase> {};

TEST_P(EveryHead, MemoryIsThatOfARealRunToTheByte) {
  log::set_level(log::level::warn);
  const TemporaryFolder folder;
  testing::write_zipf_shards(folder.path(), "train", 40);
  testing::write_zipf_shards(folder.path(), "heldout", 6);
  expect_memory_of_a_real_run(config_of(GetParam(), folder.path()));
}

TEST(MuonPlan, MemoryIsThatOfARealRunToTheByte) {
  log::set_level(log::level::warn);
  const TemporaryFolder folder;
  testing::write_zipf_shards(folder.path(), "train", 40);
  Config config = config_of({.name = "", .kind = HeadKind::dense, .heldout = false}, folder.path());
  config.optim.kind = OptimizerKind::muon;
  expect_memory_of_a_real_run(config);
  const MemoryPlan plan = plan_memory(resolved(config, 1, 1), {.activation = DType::f32});
  // Hidden matrices have no second moments, and their products are counted.
  Config adamw = config;
  adamw.optim.kind = OptimizerKind::adamw;
  const auto optimizer = [](const MemoryPlan& of) { return of.bytes[static_cast<std::size_t>(MemoryUse::optimizer)]; };
  EXPECT_LT(optimizer(plan), optimizer(plan_memory(resolved(adamw, 1, 1), {.activation = DType::f32})));
  const auto flops = [](const Config& of) {
    double sum = 0;
    for (const OpCount& op : plan_step(resolved(of, 2, 2), {}).ops) sum += op.flops;
    return sum;
  };
  EXPECT_GT(flops(config), flops(adamw));
  // Of one rank: the difference is the update's, and it is 5 x (4 r^2 c + 2 r^3) for each matrix (docs/optimizers.md), with 4
  // of 64 x 64 and 3 of 64 x 128 in each of 2 blocks. AdamW is bound by bytes.
  const StepPlan muon_step = plan_step(resolved(config, 1, 1), {}), adamw_step = plan_step(resolved(adamw, 1, 1), {});
  const double r = 64, c = 128;
  EXPECT_EQ(muon_step.update.flops, 2 * 5 * (4 * 6 * r * r * r + 3 * (4 * r * r * c + 2 * r * r * r)));
  EXPECT_EQ(adamw_step.update.flops, 0);
  EXPECT_EQ(muon_step.flops - adamw_step.flops, muon_step.update.flops);
  EXPECT_GT(muon_step.update.seconds, 0);
  // What is sent after the gradients: the exchange there and back. Parameters are gathered in the next forward pass.
  const StepPlan on_two = plan_step(resolved(config, 2, 1), {});
  double sent = 0;
  for (const CollectiveCount& count : on_two.collectives) {
    if (count.name == "all_to_all_v") sent += count.sent_bytes;
  }
  EXPECT_NEAR(on_two.update.sent_bytes, sent, 1024);  // norm and statistics are a few numbers
}

// Over all ranks the exchange has each matrix twice, at its owners and at its home, and beside a piece less than three times an
// alignment's 64 elements. Two of 16 ranks are the home of none of the 14 matrices.
TEST(MuonPlan, TheExchangeSendsEachMatrixOnceThereAndOnceBack) {
  Config config = config_of({.name = "", .kind = HeadKind::dense, .heldout = false}, "none");
  config.optim.kind = OptimizerKind::muon;
  config.train.global_batch = 48;
  const double matrices = 2 * 7, elements = 2 * (4 * 64 * 64 + 3 * 64 * 128);
  for (const auto& [data, tensor] : {std::pair{2, 1}, {2, 2}, {16, 1}}) {
    SCOPED_TRACE(::testing::Message() << data << " x " << tensor);
    const Config on_grid = resolved(config, data, tensor);
    double payload = 0, sent = 0;
    for (int rank = 0; rank < data * tensor; ++rank) {
      for (const CollectiveCount& count : plan_step(on_grid, {.rank = rank}).collectives) {
        if (count.name != "all_to_all_v") continue;
        EXPECT_EQ(count.calls, 2);
        payload += count.payload_bytes;
        sent += count.sent_bytes;
      }
    }
    const double pieces = tensor * (matrices + data);  // every rank's share begins within a matrix at most
    EXPECT_GE(payload, 2 * sizeof(float) * elements);
    EXPECT_LT(payload, 2 * sizeof(float) * (elements + pieces * 3 * 64));
    EXPECT_GT(sent, 0);
    EXPECT_LT(sent, payload);
  }
}

TEST(RecomputationPlan, MemoryIsThatOfARealRunAndOperationsAreTheBlocks) {
  log::set_level(log::level::warn);
  const TemporaryFolder folder;
  testing::write_zipf_shards(folder.path(), "train", 40);
  Config config = config_of({.name = "", .kind = HeadKind::dense, .heldout = false}, folder.path());
  config.model.n_layers = 3;
  const std::size_t before = plan_memory(resolved(config, 1, 1), {.activation = DType::f32}).total();
  config.train.recompute = Recompute::cheap;
  expect_memory_of_a_real_run(config);
  const auto cost = [&](const StepPlan& step) {
    return recomputation_cost(resolved(config, 1, 1), {.activation = DType::f32}, step);
  };
  const StepPlan cheap = plan_step(resolved(config, 1, 1), {.activation = DType::f32});
  const double spared = cost(cheap).bytes;
  EXPECT_EQ(cost(cheap).flops, 0);  // of products, which are what is counted
  EXPECT_GT(cost(cheap).seconds, 0);
  EXPECT_EQ(static_cast<double>(before - cheap.memory.total()), spared);
  // Two layers of two normalised streams and the MLP's hidden array, all multiples of 256 bytes.
  const auto rows = static_cast<double>(config.train.micro_batch * config.data.seq_len);
  const auto d = static_cast<double>(config.model.d_model), d_ff = static_cast<double>(config.model.d_ff);
  EXPECT_EQ(spared, 2 * 4 * rows * (2 * d + d_ff));

  config.train.recompute = Recompute::block;
  config.run.dir += "-block";
  expect_memory_of_a_real_run(config);
  const StepPlan block = plan_step(resolved(config, 1, 1), {.activation = DType::f32});
  EXPECT_GT(cost(block).bytes, spared);
  // Forward of all layers but the last, without the down projection.
  const double weights = 4 * d * d + 2 * d * d_ff;
  const auto seq_len = static_cast<double>(config.data.seq_len);
  EXPECT_EQ(cost(block).flops, 2 * block.tokens * (2 * weights + 2 * seq_len * d));
}

// Transformer::flops_per_token counts by formula, the plan by op. All terms are whole numbers below 2^53, the clusters
// have equal sizes: the sums are exact.
TEST_P(EveryHead, OperationsAreTheModels) {
  for (const int tensor : {1, 2, 4}) {
    SCOPED_TRACE(tensor);
    Config config = config_of(GetParam(), "none");
    if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) vq->clusters = 64;
    config.train.global_batch = 24;
    config = resolved(config, 2, tensor, 4096);
    const StepPlan plan = plan_step(config, {});
    double flops = 0;
    for (const OpCount& op : plan.ops) flops += op.flops;
    EXPECT_EQ(flops * 2 * tensor, plan.flops_per_token * plan.tokens);
    EXPECT_EQ(plan.micro_batches, 4);
    EXPECT_GT(plan.seconds, 0);
    EXPECT_LE(plan.seconds, plan.seconds_without_overlap() * (1 + 1e-12));
  }
}

// bf16 runs through the checks of the contract's dtypes, too. The f32 gradients and moments stay; the parameters get a
// copy of half their size.
TEST_P(EveryHead, Bf16AddsAParameterCopyAndShrinksActivations) {
  // Classes that a GPU does not pad (gpu_class_multiple): 128 of the vocabulary, 64 clusters.
  Config unpadded = config_of(GetParam(), "none");
  if (auto* vq = std::get_if<VqHeadConfig>(&unpadded.head)) vq->clusters = 64;
  const Config config = resolved(unpadded, 1, 1, 128);
  const MemoryPlan f32 = plan_memory(config, {.activation = DType::f32});
  const MemoryPlan bf16 = plan_memory(config, {.activation = DType::bf16});
  const auto bytes = [](const MemoryPlan& plan, MemoryUse use) { return plan.bytes[static_cast<std::size_t>(use)]; };
  const std::size_t gradients = bytes(f32, MemoryUse::gradients);
  EXPECT_EQ(bytes(bf16, MemoryUse::gradients), gradients);
  EXPECT_EQ(bytes(bf16, MemoryUse::optimizer), bytes(f32, MemoryUse::optimizer));
  EXPECT_EQ(bytes(bf16, MemoryUse::parameters), bytes(f32, MemoryUse::parameters) + gradients / 2);
  EXPECT_LT(bytes(bf16, MemoryUse::activations), bytes(f32, MemoryUse::activations) * 6 / 10);
}

// In bf16 an f32 matrix lies on its owner alone, and nowhere in a model that does not train.
TEST(Masters, LieOnTheirOwners) {
  const Config config = config_of({.name = "", .kind = HeadKind::dense, .bias = false}, "none");
  const auto bytes = [&](int data, DType dtype, MemoryUse use) {
    Config shared = config;
    shared.train.global_batch = 24;
    return plan_memory(resolved(shared, data, 1, 128), {.activation = dtype}).bytes[static_cast<std::size_t>(use)];
  };
  constexpr std::size_t gains = 512;  // 5 of 64, padded to 8 x 64
  const std::size_t all = bytes(8, DType::bf16, MemoryUse::gradients) / 4;
  EXPECT_EQ(bytes(8, DType::bf16, MemoryUse::parameters), 2 * all + 4 * ((all - gains) / 8 + gains));
  EXPECT_EQ(bytes(8, DType::bf16, MemoryUse::optimizer), all);  // 8 bytes, on one of 8
  // Ops read f32 values on the CPU, and one rank owns all.
  EXPECT_EQ(bytes(8, DType::f32, MemoryUse::parameters), 4 * all);
  const std::size_t alone = bytes(1, DType::bf16, MemoryUse::gradients) / 4;
  EXPECT_EQ(bytes(1, DType::bf16, MemoryUse::parameters), 6 * alone);

  PlannedMachine machine{StatedRates{}};
  PlanningBackend backend(machine, DType::bf16);
  PlanningCommunicator group(machine, "tensor", 0, 1, Link::tensor);
  const Config model = resolved(config, 1, 1, 128);
  const Transformer evaluated(
      backend, group, {.model = model.model, .head = model.head, .batch = {2, 8}, .purpose = Purpose::evaluation},
      nullptr);
  EXPECT_EQ(backend.memory().in_use[static_cast<std::size_t>(MemoryUse::parameters)], 2 * alone + 4 * 320);
}

std::string name_of(const ::testing::TestParamInfo<HeadCase>& test) {
  return test.param.name;
}

INSTANTIATE_TEST_SUITE_P(
    Plan, EveryHead,
    ::testing::Values(
        HeadCase{.name = "dense", .kind = HeadKind::dense}, HeadCase{.name = "low_rank", .kind = HeadKind::low_rank},
        HeadCase{.name = "dense_no_heldout", .kind = HeadKind::dense, .heldout = false},
        HeadCase{.name = "dense_tied", .kind = HeadKind::dense, .tied = true, .bias = false},
        HeadCase{.name = "vq", .kind = HeadKind::vq}, HeadCase{.name = "vq_g0", .kind = HeadKind::vq, .groups = 0},
        HeadCase{.name = "vq_no_bias", .kind = HeadKind::vq, .bias = false},
        HeadCase{.name = "vq_embedding", .kind = HeadKind::vq, .embedding = true},
        HeadCase{.name = "vq_embedding_mean", .kind = HeadKind::vq, .embedding = true, .means_and_input_codes = true},
        HeadCase{.name = "vq_ema", .kind = HeadKind::vq, .learning = CodebookLearning::ema}),
    name_of);

Config large_batch(HeadKind head) {
  HeadCase head_case{.name = "", .kind = head, .tied = false, .bias = true, .groups = 8, .heldout = false};
  Config config = config_of(head_case, "none");
  config.train.micro_batch = 6;
  config.train.global_batch = 24;
  return resolved(config, 2, 1);
}

std::size_t bytes_at(Config config, std::int64_t micro_batch) {
  config.train.micro_batch = micro_batch;
  return plan_memory(config, {}).total();
}

TEST(MemoryPlan, TheLargestMicroBatchIsTheLastThatFits) {
  const Config config = large_batch(HeadKind::dense);  // 12 sequences a data rank: 1, 2, 3, 4, 6 or 12 at once
  EXPECT_EQ(largest_micro_batch(config, {}, bytes_at(config, 4)), 4);
  EXPECT_EQ(largest_micro_batch(config, {}, bytes_at(config, 4) - 1), 3);
  EXPECT_EQ(largest_micro_batch(config, {}, bytes_at(config, 12)), 12);
  EXPECT_EQ(largest_micro_batch(config, {}, bytes_at(config, 6) + 1), 6);  // not 5: it does not divide 12
  EXPECT_EQ(largest_micro_batch(config, {}, bytes_at(config, 1) - 1), std::nullopt);
}

TEST(MemoryPlan, AShortageNamesWhatIsNeededAndTheWayOut) {
  const Config config = large_batch(HeadKind::dense);
  const std::size_t needed = bytes_at(config, 6);
  EXPECT_NO_THROW(require_memory(config, {}, needed));
  try {
    require_memory(config, {}, bytes_at(config, 3));
    FAIL() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 1);
    EXPECT_THAT(error.what(), HasSubstr("out of device memory: needs " + human_bytes(static_cast<double>(needed))));
    EXPECT_THAT(error.what(), HasSubstr(human_bytes(static_cast<double>(bytes_at(config, 3))) + " free"));
    EXPECT_THAT(error.what(), HasSubstr("train.micro_batch = 3 (needs"));
  }
  try {
    require_memory(config, {}, 1000);
    FAIL() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no single key mends that"));
  }
}

TEST(MemoryPlan, ChangesSayWhetherTheyFit) {
  const Config config = large_batch(HeadKind::dense);
  const std::vector<MemoryChange> changes = memory_changes(config, {}, bytes_at(config, 3));
  std::string names;
  for (const MemoryChange& change : changes) {
    names += change.change + "\n";
    EXPECT_EQ(change.fits, change.bytes <= bytes_at(config, 3)) << change.change;
    EXPECT_LT(change.bytes, bytes_at(config, 6)) << change.change;
  }
  for (const char* expected :
       {"train.micro_batch = 3\n", "parallel.tensor = 2, parallel.data = 1 (2 ranks)\n",
        "parallel.tensor = 2, parallel.data = 2 (4 ranks)\n", "data.seq_len = 16\n", "head.kind = \"vq\""}) {
    EXPECT_THAT(names, HasSubstr(expected));
  }
}

TEST(PlanWords, Sizes) {
  EXPECT_EQ(parse_bytes("80GB", "-"), 80'000'000'000U);
  EXPECT_EQ(parse_bytes("80GiB", "-"), std::size_t{80} << 30);
  EXPECT_EQ(parse_bytes("512M", "-"), 512'000'000U);
  EXPECT_EQ(parse_bytes("1.5k", "-"), 1500U);
  EXPECT_THROW(parse_bytes("123", "-"), UsageError);
  EXPECT_EQ(parse_bytes("7b", "-"), 7U);
  for (const char* wrong : {"", "GB", "80 GB", "80GG", "80XB", "-1GB", "0", "nan", "inf", "1e30", "80GBB", "80iB"}) {
    EXPECT_THROW(parse_bytes(wrong, "--device-memory"), UsageError) << wrong;
  }
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(123.4 * 1024 * 1024), "123.4 MiB");
}

TEST(PlanWords, Grids) {
  EXPECT_EQ(parse_grid("8x2").data, 8);
  EXPECT_EQ(parse_grid("8x2").tensor, 2);
  for (const char* wrong : {"", "8", "x2", "8x", "0x2", "8x0", "8X2", "8x2x1", "-1x2", "1048576x2"}) {
    EXPECT_THROW(parse_grid(wrong), UsageError) << wrong;
  }
}

}  // namespace
}  // namespace vqlm
