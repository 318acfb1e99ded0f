// The model, its gradients and three AdamW steps against an independent PyTorch implementation (tests/parity).
#include <gtest/gtest.h>

#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "core/model/transformer.h"
#include "dist/process_grid.h"
#include "tests/train/golden.h"
#include "train/engine/optimizer.h"

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
        map_(golden.head().kind == HeadKind::vq ? std::optional(golden.code_map()) : std::nullopt),
        model_(*backend_, grid_.tensor(),
               {.model = golden.model(), .head = golden.head(), .batch = {golden.batch(), golden.seq_len()}},
               map_ ? &*map_ : nullptr),
        optimizer_(*backend_, grid_, model_.parameters(), optim(), golden.adamw(0).max_norm),
        ids_(backend_->allocate(static_cast<std::size_t>(2 * golden.tokens()) * 4, MemoryUse::workspace)),
        losses_(backend_->allocate(static_cast<std::size_t>(2 * golden.tokens()) * 4, MemoryUse::workspace)) {
    for (const std::string& name : golden.names())
      model_.parameters().set_from_whole(id(name), golden.initial(name));
  }

  struct Losses {
    double nll = 0;
    double penalty = 0;
  };

  /// Means over the tokens of step `step`; gradients are left in the store.
  Losses forward_backward(int step) {
    const std::int64_t n = golden_.tokens();
    const Tensor tokens = ids_.view({2 * n}, DType::i32).range(0, n);
    const Tensor targets = ids_.view({2 * n}, DType::i32).range(n, n);
    const Tensor nll = losses_.view({2 * n}).range(0, n);
    const Tensor penalty = losses_.view({2 * n}).range(n, n);
    backend_->copy_from_host(tokens, golden_.inputs(step).data());
    backend_->copy_from_host(targets, golden_.targets(step).data());
    optimizer_.zero_gradients();
    model_.accumulate_gradients(nll, penalty, tokens, targets, 1.0f / static_cast<float>(n),
                                [this](int bucket) { optimizer_.bucket_ready(bucket); });
    Losses sums;
    for (std::int64_t i = 0; i < n; ++i) {
      sums.nll += static_cast<double>(nll.f32()[i]) / static_cast<double>(n);
      sums.penalty += static_cast<double>(penalty.f32()[i]) / static_cast<double>(n);
    }
    return sums;
  }

  double optimizer_step(int step) {
    optimizer_.finish_reductions();
    return optimizer_.step(step + 1, golden_.adamw(step).lr);
  }

  ParameterId id(const std::string& name) {
    const auto& all = model_.parameters().parameters();
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].name == name) return static_cast<ParameterId>(i);
    }
    ADD_FAILURE() << "the model has no parameter " << name;
    return 0;
  }
  std::vector<float> value(const std::string& name) { return host(model_.parameters().value(id(name))); }
  std::vector<float> gradient(const std::string& name) {
    return host(model_.parameters().gradient(id(name)));
  }
  Transformer& model() { return model_; }
  Backend& backend() { return *backend_; }

 private:
  OptimSection optim() const {
    const AdamWStep numbers = golden_.adamw(0);
    OptimSection section;
    section.beta1 = numbers.beta1;
    section.beta2 = numbers.beta2;
    section.eps = numbers.eps;
    section.weight_decay = numbers.weight_decay;
    return section;
  }
  static std::vector<float> host(Tensor x) { return {x.f32(), x.f32() + x.numel()}; }

  const Golden& golden_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_;
  std::optional<CodeMap> map_;
  Transformer model_;
  Optimizer optimizer_;
  Buffer ids_, losses_;
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
                         ::testing::Values("dense", "dense_bias", "dense_tied", "vq", "vq_g0",
                                           "vq_commitment", "vq_input_codes", "vq_embedding",
                                           "vq_embedding_mean"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace vqlm
