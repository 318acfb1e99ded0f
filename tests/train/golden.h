// Golden values from tests/parity/make_goldens.py (an independent PyTorch implementation in double
// precision), read for the tests that ask the model for the same numbers. tests/parity/README.md describes
// the files.
//
//   const Golden golden = Golden::of_case("vq");
//   Transformer model(backend, ..., golden.model(), ...);             // golden.head(), golden.code_map()
//   for (const auto& name : golden.names()) set(name, golden.initial(name));
//   for (int step = 0; step < golden.steps(); ++step) {
//     forward_backward(golden.inputs(step), golden.targets(step));    // dloss = 1 / golden.tokens()
//     EXPECT_NEAR(nll / golden.tokens(), golden.loss()[step], ...);
//     adamw(golden.adamw(step));
//   }
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/model/head/code_map.h"
#include "core/model_config.h"
#include "data/hdf5/h5.h"
#include "tests/train/head_config.h"

namespace vqlm::testing {

/// One case. Throws Error where the file cannot be read or lacks something.
class Golden {
 public:
  explicit Golden(const std::string& path) : file_(h5::File::open(path)) {
    model_.vocab_size = file_.int_attribute("vocab_size");
    model_.d_model = file_.int_attribute("d_model");
    model_.n_layers = static_cast<int>(file_.int_attribute("n_layers"));
    model_.n_heads = static_cast<int>(file_.int_attribute("n_heads"));
    model_.n_kv_heads = static_cast<int>(file_.int_attribute("n_kv_heads"));
    model_.d_ff = file_.int_attribute("d_ff");
    model_.rope_theta = static_cast<float>(file_.double_attribute("rope_theta"));
    model_.norm_eps = static_cast<float>(file_.double_attribute("norm_eps"));
    model_.tie_embeddings = file_.int_attribute("tie_embeddings") != 0;
    read_body();

    const bool bias = file_.int_attribute("bias") != 0;
    if (file_.has_attribute("rank")) {
      head_ = LowRankHeadConfig{.bias = bias, .z_loss = of_dense("z_loss"), .rank = file_.int_attribute("rank")};
      return;
    }
    if (file_.has_attribute("tail_ratio")) {
      const auto cutoffs = all<std::int32_t>("cutoffs");
      head_ = AdaptiveHeadConfig{.bias = bias,
                                 .cutoffs = {cutoffs.begin(), cutoffs.end()},
                                 .tail_ratio = static_cast<int>(file_.int_attribute("tail_ratio"))};
      return;
    }
    if (file_.int_attribute("vq") == 0) {
      head_ = DenseHeadConfig{.bias = bias, .z_loss = of_dense("z_loss"), .softcap = of_dense("softcap")};
      return;
    }
    VqHeadConfig vq{.bias = bias,
                    .clusters = file_.int_attribute("clusters"),
                    .members = code_members(static_cast<int>(file_.int_attribute("groups")),
                                            static_cast<int>(file_.int_attribute("codes"))),
                    .input_codes = file_.has_attribute("input_codes")};
    if (file_.has_attribute("embedding_members"))
      vq.members = EmbeddingMembersConfig{.mean = file_.has_attribute("member_mean")};
    const auto commitment = static_cast<float>(file_.double_attribute("commitment"));
    if (commitment > 0) vq.learning = CommitmentLearningConfig{commitment};
    head_ = vq;
  }

  /// A case of tests/parity/README.md.
  static Golden of_case(const std::string& name) {
    return Golden(std::string(VQLM_SOURCE_DIR) + "/tests/parity/" + name + ".h5");
  }

  // ---- configuration --------------------------------------------------------------------------------------
  const ModelConfig& model() const { return model_; }
  const HeadConfig& head() const { return head_; }
  std::int64_t batch() const { return file_.int_attribute("batch"); }
  std::int64_t seq_len() const { return file_.int_attribute("seq_len"); }
  /// N = batch * seq_len: the tokens of a step, all with a target.
  std::int64_t tokens() const { return batch() * seq_len(); }
  int steps() const { return static_cast<int>(file_.int_attribute("steps")); }

  /// The numbers of step `step` (from 0). weight_decay is for parameters of rank 2 and more; others take 0.
  AdamWStep adamw(int step) const {
    AdamWStep numbers;
    numbers.lr = static_cast<float>(file_.double_attribute("lr"));
    numbers.beta1 = static_cast<float>(file_.double_attribute("beta1"));
    numbers.beta2 = static_cast<float>(file_.double_attribute("beta2"));
    numbers.eps = static_cast<float>(file_.double_attribute("eps"));
    numbers.weight_decay = static_cast<float>(file_.double_attribute("weight_decay"));
    numbers.max_norm = static_cast<float>(file_.double_attribute("grad_clip"));
    numbers.step = step + 1;
    return numbers;
  }

  /// The VQ head's map, or the adaptive one's bands; of these cases only.
  CodeMap code_map() const {
    CodeMap map;
    map.vocab_size = model_.vocab_size;
    const MapSizes sizes = map_sizes(head_).value();
    map.clusters = sizes.clusters;
    map.groups = sizes.groups;
    map.codes = sizes.codes;
    map.cluster_of_token = all<std::int32_t>("map/vq_head.cluster_of_token");
    if (map.groups > 0) map.member_codes = all<std::uint8_t>("map/vq_head.member_codes");
    map.provenance = file_.path();
    return map;
  }

  // ---- inputs ---------------------------------------------------------------------------------------------
  /// (B, T) ids of step `step` (from 0).
  std::vector<std::int32_t> inputs(int step) const { return columns(step, 0); }
  /// (B, T) ids: the token after each input.
  std::vector<std::int32_t> targets(int step) const { return columns(step, 1); }

  // ---- parameters, by logical name
  // -------------------------------------------------------------------------
  /// All trained tensors, alphabetically; a tied head has no lm_head.weight.
  std::vector<std::string> names() const { return file_.names("/init"); }
  h5::Dims shape(const std::string& name) const { return file_.dataset("init/" + name).shape(); }
  std::vector<float> initial(const std::string& name) const { return all<float>("init/" + name); }
  /// Of step 0, before clipping.
  std::vector<double> gradient(const std::string& name) const { return all<double>("grad/" + name); }
  /// After all steps.
  std::vector<double> trained(const std::string& name) const { return all<double>("step3/" + name); }

  // ---- results of each step
  // --------------------------------------------------------------------------------
  /// Mean negative log-likelihood in nats, before the step's update.
  std::vector<double> loss() const { return all<double>("loss"); }
  /// Mean commitment loss (0 without), to be minimised together with the loss.
  std::vector<double> penalty() const { return all<double>("penalty"); }
  /// Over all parameters, before clipping.
  std::vector<double> grad_norm() const { return all<double>("grad_norm"); }
  /// (B*T, V) for inputs(0) with the initial parameters.
  std::vector<double> log_probs() const { return all<double>("log_probs"); }

 private:
  float of_dense(const char* name) const {
    return file_.has_attribute(name) ? static_cast<float>(file_.double_attribute(name)) : 0;
  }

  /// What makes another body than Llama's; absent attributes mean the defaults.
  void read_body() {
    const auto whole = [&](const char* name) { return file_.has_attribute(name) ? file_.int_attribute(name) : 0; };
    const auto number = [&](const char* name, float otherwise) {
      return file_.has_attribute(name) ? static_cast<float>(file_.double_attribute(name)) : otherwise;
    };
    model_.head_width = static_cast<int>(whole("head_width"));
    model_.attention_bias = whole("attention_bias") != 0;
    model_.qk_norm = static_cast<QkNorm>(whole("qk_norm"));
    model_.norm_placement = static_cast<NormPlacement>(whole("norm_placement"));
    model_.activation = static_cast<Activation>(whole("activation"));
    model_.nope_every = static_cast<int>(whole("nope_every"));
    model_.window = whole("window");
    if (file_.has_attribute("document_end")) model_.document_end = static_cast<std::int32_t>(whole("document_end"));
    model_.window_pattern = static_cast<int>(whole("window_pattern"));
    model_.embedding_scale = number("embedding_scale", 1);
    model_.attention_scale = number("attention_scale", 0);
    model_.window_rope_theta = number("window_rope_theta", 0);
    for (std::int64_t i = 0; i < whole("ngram_tables"); ++i) {
      model_.ngram_tables.push_back({.order = static_cast<int>(file_.int_attribute("ngram_order_" + std::to_string(i))),
                                     .rows = file_.int_attribute("ngram_rows_" + std::to_string(i))});
    }
  }

  template <class T>
  std::vector<T> all(const std::string& name) const {
    return file_.dataset(name).read_all<T>();
  }

  std::vector<std::int32_t> columns(int step, std::uint64_t first) const {
    const auto rows = static_cast<std::uint64_t>(batch());
    const auto width = static_cast<std::uint64_t>(seq_len());
    std::vector<std::int32_t> ids(rows * width);
    file_.dataset("batches").read(std::span(ids), {static_cast<std::uint64_t>(step), 0, first}, {1, rows, width});
    return ids;
  }

  h5::File file_;
  ModelConfig model_;
  HeadConfig head_;
};

/// |actual - expected| / |expected| in the 2-norm; |actual| itself where expected is zero.
///
/// Bounds: the PyTorch script run in float32 comes within 1e-7 (loss, relative), 1e-6 (worst tensor of the
/// gradients) and 5e-5 (worst tensor of trained - initial). Compare updates by norm, not element by element:
/// Adam divides by the gradient's size, so elements whose gradient is near its rounding error step either
/// way.
template <class A, class B>
double relative_distance(const std::vector<A>& actual, const std::vector<B>& expected) {
  VQLM_ASSERT(actual.size() == expected.size());
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]);
    const double e = static_cast<double>(expected[i]);
    difference += (a - e) * (a - e);
    size += e * e;
  }
  return std::sqrt(difference) / (size > 0 ? std::sqrt(size) : 1.0);
}

}  // namespace vqlm::testing
