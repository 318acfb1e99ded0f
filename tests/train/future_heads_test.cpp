// Heads for later tokens: what they predict, their losses and gradients with every output head, and how often they would be
// right.
#include "core/model/head/future_heads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ostream>

#include "tests/train/tiny_model.h"
#include "train/engine/draft_acceptance.h"
#include "train/engine/future_targets.h"

namespace vqlm::testing {
namespace {

using ::testing::ElementsAre;

constexpr std::int64_t vocabulary = 61, length = 8, rows = 16, heads = 2;

TEST(FutureTargets, EndWithTheSequenceAndWithTheDocument) {
  const std::vector<std::int32_t> tokens = {10, 11, 9, 13, 14, 20, 21, 22, 23, 9};
  const std::vector<std::int32_t> targets = {11, 9, 13, 14, 15, 21, 22, 23, 9, -1};
  std::vector<std::int32_t> future(20, 7);
  write_future_targets(future, tokens, targets, {2, 5}, -1);
  EXPECT_THAT(std::vector<std::int32_t>(future.begin(), future.begin() + 10),
              ElementsAre(9, 13, 14, 15, -1, 22, 23, 9, -1, -1));
  EXPECT_THAT(std::vector<std::int32_t>(future.begin() + 10, future.end()),
              ElementsAre(13, 14, 15, -1, -1, 23, 9, -1, -1, -1));
  // 9 ends a document: what comes behind it is of positions behind it.
  write_future_targets(future, tokens, targets, {2, 5}, 9);
  EXPECT_THAT(std::vector<std::int32_t>(future.begin(), future.begin() + 10),
              ElementsAre(9, 13, -1, 15, -1, 22, 23, 9, -1, -1));
  EXPECT_THAT(std::vector<std::int32_t>(future.begin() + 10, future.end()),
              ElementsAre(13, -1, -1, -1, -1, 23, 9, -1, -1, -1));
}

struct Case {
  const char* name;
  HeadKind kind;
  bool tied = false;  // of VQ: members by the embedding, with means and input codes
  float z_loss = 0;
  std::int32_t document_end = -1;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

Config config_of(const Case& c) {
  Config config = tiny_model_config(c.kind);
  if (c.kind == HeadKind::vq && c.tied) {
    vq(config).members = EmbeddingMembersConfig{.mean = true};
    vq(config).input_codes = true;
  } else {
    config.model.tie_embeddings = c.tied;
  }
  if (auto* dense = std::get_if<DenseHeadConfig>(&config.head)) dense->z_loss = c.z_loss;
  std::visit([](auto& head) { head.future = {.heads = heads, .weight = 0.7f}; }, config.head);
  config.model.document_end = c.document_end;
  return config;
}

/// A tiny model whose micro-batch is given, and its losses.
class FutureModel {
 public:
  explicit FutureModel(const Config& config) : tiny_(config), nll_(static_cast<std::size_t>((1 + heads) * rows)) {
    tiny_.randomize(7, 0.3f);
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows + 2); ++i)
      text_.push_back(static_cast<std::int32_t>(Philox(9, "text").below(i, vocabulary)));
    if (config.model.document_end >= 0) text_[3] = text_[13] = config.model.document_end;
    const std::size_t t = length;
    for (std::size_t b = 0; b < 2; ++b) {
      const auto first = text_.begin() + static_cast<std::ptrdiff_t>(b * (t + 1));
      batch_.tokens.insert(batch_.tokens.end(), first, first + length);
      batch_.targets.insert(batch_.targets.end(), first + 1, first + length + 1);
    }
    targets_ = batch_.targets;
    targets_.resize(static_cast<std::size_t>((1 + heads) * rows));
    write_future_targets(std::span(targets_).subspan(rows), batch_.tokens, batch_.targets, model().batch(),
                         config.model.document_end);
  }

  Transformer& model() { return tiny_.model(); }
  /// The losses of all heads, (1 + F, N).
  const std::vector<float>& evaluate() {
    model().evaluate(Tensor(nll_.data(), DType::f32, {1 + heads, rows}),
                     Tensor(batch_.tokens.data(), DType::i32, {rows}),
                     Tensor(targets_.data(), DType::i32, {1 + heads, rows}));
    return nll_;
  }
  double sum(std::int64_t head) const {
    const auto first = nll_.begin() + head * rows;
    return std::accumulate(first, first + rows, 0.0);
  }
  std::span<const std::int32_t> future_targets() const { return std::span(targets_).subspan(rows); }

  TinyModel tiny_;
  std::vector<std::int32_t> text_, targets_;
  Batch batch_;
  std::vector<float> nll_;
};

class FutureHeadsTest : public ::testing::TestWithParam<Case> {};

TEST_P(FutureHeadsTest, LossesAreOfTheTransformedStates) {
  FutureModel future(config_of(GetParam()));
  future.evaluate();
  std::vector<float> log_probs(static_cast<std::size_t>(rows * vocabulary));
  const Tensor out(log_probs.data(), DType::f32, {rows, vocabulary});
  std::vector<float> h(static_cast<std::size_t>(rows * 16));
  future.tiny_.backend().copy_to_host(h.data(), future.model().hidden());
  const ParameterStore& store = future.tiny_.store();
  for (std::int64_t j = 0; j < heads; ++j) {
    // g = h + silu(W h), by the definition.
    const auto weight =
        std::ranges::find(store.parameters(), "future_heads." + std::to_string(j) + ".weight", &Parameter::name);
    ASSERT_NE(weight, store.parameters().end());
    EXPECT_EQ(weight->init.stddev, 0);
    const float* const w = store.value(static_cast<ParameterId>(weight - store.parameters().begin())).f32();
    std::vector<float> g(h.size());
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      for (std::size_t i = 0; i < 16; ++i) {
        double z = 0;
        for (std::size_t k = 0; k < 16; ++k)
          z += static_cast<double>(w[i * 16 + k]) * static_cast<double>(h[row * 16 + k]);
        g[row * 16 + i] = static_cast<float>(static_cast<double>(h[row * 16 + i]) + z / (1 + std::exp(-z)));
      }
    }
    future.model().head().log_probs(out, Tensor(g.data(), DType::f32, {rows, 16}));
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int32_t target = future.future_targets()[static_cast<std::size_t>(j * rows + row)];
      const float nll = future.nll_[static_cast<std::size_t>((1 + j) * rows + row)];
      if (target < 0) {
        EXPECT_EQ(nll, 0);
      } else {
        EXPECT_NEAR(nll, -log_probs[static_cast<std::size_t>(row * vocabulary + target)], 2e-5) << j << ", " << row;
      }
    }
  }
}

// The gradient of the step's loss: scale (sum of nll + weight / F * the heads' sums), with z-losses. Differences over 2e-2 of a
// loss of 16 tokens near 5, in f32 known to 1e-5: 1e-3 at worst, times the scale of 1 / 16.
TEST_P(FutureHeadsTest, GradientsAreThoseOfFiniteDifferences) {
  Config config = config_of(GetParam());
  FutureModel future(config);
  TinyModel& tiny = future.tiny_;
  ParameterStore& store = tiny.store();
  MicroBatches micro_batches(tiny.backend(), future.model(), tiny.optimizer(), 1, 1.0f / rows, UseGraphs::no);
  std::fill_n(store.flat_gradients().f32(), store.flat_gradients().numel(), std::nanf(""));
  micro_batches.set(0, future.batch_);
  std::vector<float> gradients;
  micro_batches.enqueue_directly();
  const StepSums sums = micro_batches.sums();
  gradients.assign(store.flat_gradients().f32(), store.flat_gradients().f32() + store.flat_gradients().numel());

  future.evaluate();
  EXPECT_NEAR(sums.nll, future.sum(0), 1e-4);
  ASSERT_EQ(sums.future.size(), static_cast<std::size_t>(heads));
  for (std::size_t j = 0; j < heads; ++j) {
    EXPECT_NEAR(sums.future[j].nll, future.sum(static_cast<std::int64_t>(j) + 1), 1e-4);
    EXPECT_EQ(sums.future[j].tokens, std::ranges::count_if(future.future_targets().subspan(j * rows, rows),
                                                           [](std::int32_t target) { return target >= 0; }));
  }

  const double z = static_cast<double>(GetParam().z_loss);
  std::vector<float> logits(static_cast<std::size_t>(rows * vocabulary));
  const auto loss = [&] {
    future.evaluate();
    const double weight = 0.7 / heads;
    double total = future.sum(0) + weight * (future.sum(1) + future.sum(2));
    if (z == 0) return total / rows;
    // log Z of each head's logits: of a dense head, x_y + nll, from the definition.
    const Tensor matrix = store.value(static_cast<ParameterId>(
        std::ranges::find(store.parameters(), "lm_head.weight", &Parameter::name) - store.parameters().begin()));
    const Tensor bias = store.value(static_cast<ParameterId>(
        std::ranges::find(store.parameters(), "lm_head.bias", &Parameter::name) - store.parameters().begin()));
    for (std::int64_t j = 0; j <= heads; ++j) {
      const Tensor h =
          j == 0 ? future.model().hidden() : future.model().future()->hidden(j - 1, future.model().hidden());
      for (std::int64_t row = 0; row < rows; ++row) {
        const std::int32_t target = future.targets_[static_cast<std::size_t>(j * rows + row)];
        if (target < 0) continue;
        double x = static_cast<double>(bias.f32()[target]);
        for (std::int64_t i = 0; i < 16; ++i)
          x += static_cast<double>(matrix.f32()[target * 16 + i]) * static_cast<double>(h.f32()[row * 16 + i]);
        const double lse = x + static_cast<double>(future.nll_[static_cast<std::size_t>(j * rows + row)]);
        total += (j == 0 ? 1 : weight) * z * lse * lse;
      }
    }
    return total / rows;
  };
  constexpr float step = 1e-2f;
  for (std::size_t id = 0; id < store.parameters().size(); ++id) {
    const Parameter& parameter = store.parameters()[id];
    const Tensor value = store.value(static_cast<ParameterId>(id));
    for (std::int64_t i = value.numel() / 7; i < value.numel(); i += 1 + value.numel() / 4) {
      float& x = value.f32()[i];
      const float before = x;
      x = before + step;
      const double above = loss();
      x = before - step;
      const double below = loss();
      x = before;
      const double expected = (above - below) / (2 * static_cast<double>(step));
      EXPECT_NEAR(gradients[static_cast<std::size_t>(parameter.flat_begin + i)], expected,
                  2e-4 + 5e-3 * std::abs(expected))
          << parameter.name << " " << i;
    }
  }
}

// Twice the micro-batch: gradients that begin by a product are written once and then added to.
TEST_P(FutureHeadsTest, MicroBatchesAddUp) {
  FutureModel future(config_of(GetParam()));
  TinyModel& tiny = future.tiny_;
  const Tensor gradients = tiny.store().flat_gradients();
  const auto gradient_of = [&](std::int64_t count) {
    MicroBatches micro_batches(tiny.backend(), future.model(), tiny.optimizer(), count, 1.0f / rows, UseGraphs::no);
    for (std::int64_t number = 0; number < count; ++number) micro_batches.set(number, future.batch_);
    std::fill_n(gradients.f32(), gradients.numel(), std::nanf(""));
    micro_batches.enqueue_directly();
    micro_batches.sums();
    return std::vector<float>(gradients.f32(), gradients.f32() + gradients.numel());
  };
  const std::vector<float> once = gradient_of(1), twice = gradient_of(2);
  for (std::size_t i = 0; i < once.size(); ++i)
    ASSERT_NEAR(twice[i], 2 * once[i], 1e-5 + 1e-4 * std::abs(once[i])) << i;
}

// At the start head j is the output head: it drafts what that says at the position itself.
TEST_P(FutureHeadsTest, AcceptanceIsTheShareOfEqualChoices) {
  FutureModel future(config_of(GetParam()));
  ParameterStore& store = future.tiny_.store();
  const auto choices = [&](Tensor h) {
    std::vector<float> out(static_cast<std::size_t>(rows * vocabulary));
    future.model().head().log_probs(Tensor(out.data(), DType::f32, {rows, vocabulary}), h);
    std::vector<std::int64_t> best;
    for (auto row = out.begin(); row != out.end(); row += vocabulary)
      best.push_back(std::max_element(row, row + vocabulary) - row);
    return best;
  };
  for (const bool at_start : {false, true}) {
    for (std::size_t id = 0; at_start && id < store.parameters().size(); ++id) {
      const Tensor value = store.value(static_cast<ParameterId>(id));
      if (store.parameters()[id].name.starts_with("future_heads.")) std::fill_n(value.f32(), value.numel(), 0.0f);
    }
    future.evaluate();
    DraftAcceptance acceptance(future.tiny_.backend(), future.model());
    acceptance.add(future.future_targets());
    const std::vector<std::int64_t> own = choices(future.model().hidden());
    for (std::int64_t j = 0; j < heads; ++j) {
      const std::vector<std::int64_t> drafts = choices(future.model().future()->hidden(j, future.model().hidden()));
      if (at_start) {
        EXPECT_EQ(drafts, own);
      }
      double positions = 0, accepted = 0;
      for (std::int64_t b = 0; b < 2; ++b) {
        for (std::int64_t t = 0; t + j + 1 < length; ++t) {
          if (future.future_targets()[static_cast<std::size_t>(j * rows + b * length + t)] < 0) continue;
          ++positions;
          if (drafts[static_cast<std::size_t>(b * length + t)] == own[static_cast<std::size_t>(b * length + t + j + 1)])
            ++accepted;
        }
      }
      EXPECT_EQ(acceptance.positions()[static_cast<std::size_t>(j)], positions);
      EXPECT_EQ(acceptance.accepted()[static_cast<std::size_t>(j)], accepted);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Heads, FutureHeadsTest,
    ::testing::Values(Case{.name = "dense", .kind = HeadKind::dense},
                      Case{.name = "z_loss", .kind = HeadKind::dense, .z_loss = 0.05f},
                      Case{.name = "dense_tied", .kind = HeadKind::dense, .tied = true},
                      Case{.name = "low_rank", .kind = HeadKind::low_rank},
                      Case{.name = "low_rank_tied", .kind = HeadKind::low_rank, .tied = true},
                      Case{.name = "adaptive", .kind = HeadKind::adaptive},
                      Case{.name = "vq_codes", .kind = HeadKind::vq},
                      Case{.name = "vq_embedding", .kind = HeadKind::vq, .tied = true},
                      Case{.name = "documents", .kind = HeadKind::vq, .tied = true, .document_end = 5}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(FutureHeads, CountTheirMatricesAndTheHeadsRuns) {
  FutureModel with(config_of({.name = "vq", .kind = HeadKind::vq}));
  TinyModel without(tiny_model_config(HeadKind::vq));
  const HeadCost more = with.model().head_cost(), cost = without.model().head_cost();
  EXPECT_EQ(more.matrix_parameters, cost.matrix_parameters + heads * 16 * 16);
  EXPECT_EQ(more.bias_parameters, cost.bias_parameters);
  EXPECT_EQ(more.multiply_adds, (1 + heads) * cost.multiply_adds + heads * 16 * 16);
  EXPECT_EQ(with.tiny_.store().global_count(), without.store().global_count() + heads * 16 * 16);
  EXPECT_EQ(with.model().flops_per_token() - without.model().flops_per_token(),
            6 * (more.multiply_adds - cost.multiply_adds));
}

}  // namespace
}  // namespace vqlm::testing
