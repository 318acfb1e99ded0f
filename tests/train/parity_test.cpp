// The model, its gradients and three AdamW steps against an independent PyTorch implementation (tests/parity).
#include <gtest/gtest.h>

#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "dist/process_grid.h"
#include "tests/train/golden.h"
#include "train/engine/engine.h"

namespace vqlm {
namespace {

using testing::Golden;
using testing::relative_distance;

/// A model with the golden's parameters, and its optimizer.
class GoldenRun {
 public:
  explicit GoldenRun(const Golden& golden)
      : golden_(golden),
        backend_(make_cpu_backend(1)),
        grid_(*backend_),
        map_(map_sizes(golden.head()) ? std::optional(golden.code_map()) : std::nullopt),
        config_(config_of(golden)),
        engine_(*backend_, grid_, config_, map_ ? &*map_ : nullptr) {
    for (const std::string& name : golden.names()) engine_.parameters().set_from_whole(id(name), golden.initial(name));
  }

  struct Losses {
    double nll = 0;
    double penalty = 0;
  };

  /// Means over the tokens of step `step`; gradients are left in the store.
  Losses forward_backward(int step) {
    const auto tokens = static_cast<double>(golden_.tokens());
    const auto ids = golden_.inputs(step), targets = golden_.targets(step);
    engine_.micro_batches().set(0, {{ids.begin(), ids.end()}, {targets.begin(), targets.end()}});
    engine_.micro_batches().enqueue();
    const StepSums sums = engine_.micro_batches().sums();
    return {.nll = sums.nll / tokens, .penalty = sums.penalty / tokens};
  }

  double optimizer_step(int step) { return engine_.update(step + 1, golden_.adamw(step).lr); }

  ParameterId id(const std::string& name) {
    const auto& all = engine_.parameters().parameters();
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].name == name) return static_cast<ParameterId>(i);
    }
    ADD_FAILURE() << "the model has no parameter " << name;
    return 0;
  }
  std::vector<float> value(const std::string& name) { return host(engine_.parameters().value(id(name))); }
  std::vector<float> gradient(const std::string& name) { return host(engine_.parameters().gradient(id(name))); }
  Transformer& model() { return engine_.model(); }
  Backend& backend() { return *backend_; }

 private:
  static Config config_of(const Golden& golden) {
    const AdamWStep numbers = golden.adamw(0);
    Config config;
    config.model = golden.model();
    config.head = golden.head();
    config.optim.embedding.lr_ratio = 1;
    config.optim.input_tables = {};  // as all matrices
    config.optim.input_tables_update = TableUpdate::dense;
    config.data.seq_len = golden.seq_len();
    config.train.micro_batch = config.train.global_batch = golden.batch();
    config.train.grad_clip = numbers.max_norm;
    config.parallel.data = 1;
    config.optim.beta1 = numbers.beta1;
    config.optim.beta2 = numbers.beta2;
    config.optim.eps = numbers.eps;
    config.optim.weight_decay = numbers.weight_decay;
    return config;
  }
  static std::vector<float> host(Tensor x) { return {x.f32(), x.f32() + x.numel()}; }

  const Golden& golden_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_;
  std::optional<CodeMap> map_;
  Config config_;
  Engine engine_;
};

class Parity : public ::testing::TestWithParam<const char*> {};

// The bounds are ten times what the PyTorch script shows when it is run in float32 itself (see relative_distance).
TEST_P(Parity, LossAndEveryGradient) {
  const Golden golden = Golden::of_case(GetParam());
  GoldenRun run(golden);
  ASSERT_EQ(golden.names().size(), run.model().parameters().parameters().size());
  const auto losses = run.forward_backward(0);
  EXPECT_NEAR(losses.nll, golden.loss()[0], 1e-6 * golden.loss()[0]);
  EXPECT_NEAR(losses.penalty, golden.penalty()[0], 1e-6 * golden.penalty()[0]);
  for (const std::string& name : golden.names()) {
    EXPECT_LT(relative_distance(run.gradient(name), golden.gradient(name)), 1e-5) << name;
  }
}

TEST_P(Parity, ThreeAdamWSteps) {
  const Golden golden = Golden::of_case(GetParam());
  GoldenRun run(golden);
  for (int step = 0; step < golden.steps(); ++step) {
    const auto losses = run.forward_backward(step);
    const auto at = static_cast<std::size_t>(step);
    EXPECT_NEAR(losses.nll, golden.loss()[at], 1e-5 * golden.loss()[at]);
    EXPECT_NEAR(run.optimizer_step(step), golden.grad_norm()[at], 1e-5 * golden.grad_norm()[at]);
  }
  for (const std::string& name : golden.names()) {
    EXPECT_LT(relative_distance(run.value(name), golden.trained(name)), 1e-5) << name;
  }
}

TEST_P(Parity, FullLogProbabilities) {
  const Golden golden = Golden::of_case(GetParam());
  GoldenRun run(golden);
  const std::int64_t n = golden.tokens();
  const std::int64_t vocab = golden.model().vocab_size;
  const Buffer ids = run.backend().allocate(static_cast<std::size_t>(n) * 4, MemoryUse::workspace);
  const Buffer out = run.backend().allocate(static_cast<std::size_t>(n * vocab) * 4, MemoryUse::workspace);
  run.backend().copy_from_host(ids.view({n}, DType::i32), golden.inputs(0).data());
  const Tensor log_probs = out.view({n, vocab});
  run.model().log_probs(log_probs, ids.view({n}, DType::i32));
  const std::vector<float> actual(log_probs.f32(), log_probs.f32() + log_probs.numel());
  EXPECT_LT(relative_distance(actual, golden.log_probs()), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Heads, Parity,
                         ::testing::Values("dense", "dense_bias", "dense_tied", "vq", "vq_g0", "vq_commitment",
                                           "input_tables", "input_tables_tied", "vq_input_codes", "vq_embedding",
                                           "vq_embedding_mean", "zloss", "softcap", "softcap_tied", "documents",
                                           "low_rank", "low_rank_tied", "adaptive", "adaptive_plain", "body_qwen",
                                           "body_olmo", "body_gemma", "body_smollm_vq"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace vqlm
