// Rates and decays by role reach the parameters of that role, and no other.
#include "train/config/role_ratios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <ostream>

#include "tests/train/tiny_model.h"
#include "train/config/enum_words.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using testing::tiny_model_config;
using testing::TinyModel;

struct RoleCase {
  const char* name;
  ParameterRole role;
  RoleRatios OptimSection::* ratios;
  std::vector<std::string> members;  // of the model below, but for its head
};
void PrintTo(const RoleCase& c, std::ostream* out) {
  *out << c.name;
}

using Values = std::map<std::string, std::vector<float>>;

/// The values of each parameter after one step with gradients that depend on nothing but the parameter.
Values values_after_a_step(HeadKind head, OptimizerKind kind, const std::function<void(OptimSection&)>& change) {
  Config config = tiny_model_config(head);
  if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) vq->input_codes = true;
  config.model.ngram_tables = {{.order = 2, .rows = 9}};
  config.optim.input_tables_update = TableUpdate::dense;  // by rows there is no whole gradient
  config.optim.kind = kind;
  config.optim.weight_decay = 0;
  change(config.optim);
  TinyModel model(config);
  model.randomize(5, 0.5f);
  ParameterStore& store = model.store();
  store.begin_gradients();
  for (std::size_t i = 0; i < store.parameters().size(); ++i) {
    const Tensor gradient = store.gradient(static_cast<ParameterId>(i));
    const Philox rng(6, store.parameters()[i].name);
    for (std::int64_t e = 0; e < gradient.numel(); ++e) gradient.f32()[e] = rng.normal(static_cast<std::uint64_t>(e));
  }
  model.optimizer().step(1, 0.01f);
  Values values;
  for (std::size_t i = 0; i < store.parameters().size(); ++i) {
    const Tensor value = store.value(static_cast<ParameterId>(i));
    values[store.parameters()[i].name] = {value.f32(), value.f32() + value.numel()};
  }
  return values;
}

class RoleRatiosTest : public ::testing::TestWithParam<std::tuple<RoleCase, HeadKind, OptimizerKind>> {
 protected:
  const RoleCase& role() const { return std::get<0>(GetParam()); }
  bool of_role(const std::string& name) const {
    return std::ranges::any_of(role().members, [&](const std::string& part) { return name.find(part) != name.npos; });
  }
  Values after(const std::function<void(OptimSection&)>& change) const {
    return values_after_a_step(std::get<1>(GetParam()), std::get<2>(GetParam()), change);
  }
  /// `check` sees every value of the role's parameters in both; all others are the same bits.
  void compare(const Values& before, const Values& now, const std::function<void(float, float)>& check) const {
    int checked = 0;
    for (const auto& [name, values] : before) {
      SCOPED_TRACE(name);
      if (!of_role(name)) {
        EXPECT_EQ(values, now.at(name));
        continue;
      }
      for (std::size_t i = 0; i < values.size(); ++i) check(values[i], now.at(name)[i]);
      ++checked;
    }
    const bool there = role().role != ParameterRole::table || std::get<1>(GetParam()) == HeadKind::vq;
    EXPECT_EQ(checked > 0, there);
  }
};

TEST_P(RoleRatiosTest, RatesAreTheRolesOwn) {
  const auto scaled = [&](float ratio) { return after([&](OptimSection& o) { (o.*role().ratios).lr_ratio = ratio; }); };
  // Without decay a step is in proportion to the rate.
  const Values one = scaled(1), two = scaled(2), three = scaled(3);
  compare(one, two, [](float a, float b) { EXPECT_NE(a, b); });
  for (const auto& [name, values] : one) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float first = two.at(name)[i] - values[i], second = three.at(name)[i] - two.at(name)[i];
      EXPECT_NEAR(first, second, 1e-6 * (1 + std::abs(three.at(name)[i]))) << name;  // 8 roundings of the largest
    }
  }
}

TEST_P(RoleRatiosTest, DecaysAreTheRolesOwn) {
  const auto decayed = [&](float ratio) {
    return after([&](OptimSection& o) {
      o.weight_decay = 0.5f;
      (o.*role().ratios).decay_ratio = ratio;
    });
  };
  // A decay of twice the ratio takes twice as much.
  int moved = 0;
  const Values none = decayed(0), once = decayed(1), twice = decayed(2);
  compare(none, twice, [&](float without, float with) { moved += without != with ? 1 : 0; });
  for (const auto& [name, values] : none) {
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(once.at(name)[i] - values[i], (twice.at(name)[i] - values[i]) / 2, 1e-6 * (1 + std::abs(values[i])));
  }
  const bool biases_alone = role().role == ParameterRole::head && std::get<1>(GetParam()) == HeadKind::vq;
  const bool there = role().role != ParameterRole::table || std::get<1>(GetParam()) == HeadKind::vq;
  EXPECT_EQ(moved > 0, there && !biases_alone);
}

INSTANTIATE_TEST_SUITE_P(
    Roles, RoleRatiosTest,
    ::testing::Combine(
        ::testing::Values(RoleCase{"blocks", ParameterRole::block, &OptimSection::blocks, {"_proj.weight"}},
                          RoleCase{"embedding", ParameterRole::embedding, &OptimSection::embedding, {"embed_tokens"}},
                          RoleCase{"head", ParameterRole::head, &OptimSection::head, {"lm_head", "_bias"}},
                          RoleCase{"tables", ParameterRole::table, &OptimSection::tables, {"codebook"}},
                          RoleCase{"input_tables", ParameterRole::input_table, &OptimSection::input_tables, {"ngram_tables"}},
                          RoleCase{"gains", ParameterRole::gain, &OptimSection::gains, {"norm.weight"}}),
        ::testing::Values(HeadKind::dense, HeadKind::vq, HeadKind::low_rank, HeadKind::adaptive),
        ::testing::Values(OptimizerKind::adamw, OptimizerKind::muon)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) + "_" + std::string(word_of(std::get<1>(test.param))) +
             (std::get<2>(test.param) == OptimizerKind::muon ? "_muon" : "_adamw");
    });

TEST(RatesText, NamesTheResultingNumbers) {
  OptimSection optim;
  optim.lr = 0.5f;
  optim.weight_decay = 0.25f;
  optim.blocks.lr_ratio = 2;
  optim.tables.decay_ratio = 3;
  EXPECT_EQ(rates_text(optim, {}),
            "adamw; highest rate and decay of blocks 1, 0.25; embedding 2, 0.25; head 0.5, 0.25; tables 0.5, 0.75; "
            "gains 0.5, 0");
  EXPECT_THAT(rates_text(optim, {.ngram_tables = {{.order = 2, .rows = 9}}}), HasSubstr("; input tables 2, 0"));
  optim.kind = OptimizerKind::muon;
  EXPECT_THAT(rates_text(optim, {}), HasSubstr("muon for the blocks' matrices"));
}

}  // namespace
}  // namespace vqlm
