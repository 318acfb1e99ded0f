// A model that saves and evaluates in milliseconds, with its optimizer, alone on one rank.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/model/head/band_map.h"
#include "core/rng.h"
#include "dist/process_grid.h"
#include "tests/train/head_config.h"
#include "train/config/config.h"
#include "train/engine/engine.h"

namespace vqlm::testing {

/// V = 61, d = 16, one layer of two heads, K = 5, G = 4, Q = 7, two rows of T = 8.
inline Config tiny_model_config(HeadKind head) {
  Config config;
  config.model = {.vocab_size = 61, .d_model = 16, .n_layers = 1, .n_heads = 2, .n_kv_heads = 1, .d_ff = 24};
  config.head = head_of(
      head,
      {.clusters = 5, .members = CodeMembersConfig{.groups = 4, .codes = 7}, .input_codes = false, .map = "random"});
  config.optim.embedding.lr_ratio = 1;
  config.data.seq_len = 8;
  config.train.global_batch = 2;
  config.train.micro_batch = 2;
  config.train.seed = 3;
  config.run.name = "tiny";
  return config;
}

class TinyModel {
 public:
  explicit TinyModel(Config config)
      : config_(alone(std::move(config))),
        backend_(make_cpu_backend(1)),
        grid_(*backend_),
        map_(make_map()),
        engine_(*backend_, grid_, config_, map()) {}

  /// Parameters and moments drawn from `seed`: normal with this standard deviation, moments squared for v.
  void randomize(std::uint64_t seed, float stddev) {
    const ParameterStore& store = engine_.parameters();
    for (std::size_t id = 0; id < store.parameters().size(); ++id)
      draw(store.value(static_cast<ParameterId>(id)), Philox(seed, store.parameters()[id].name), stddev);
    draw(optimizer().first_moment(), Philox(seed, "m"), stddev);
    const Tensor v = optimizer().second_moment();
    draw(v, Philox(seed, "v"), stddev);
    for (std::int64_t i = 0; i < v.numel(); ++i) v.f32()[i] *= v.f32()[i];
  }

  const Config& config() const { return config_; }
  Backend& backend() { return *backend_; }
  const ProcessGrid& grid() const { return grid_; }
  const CodeMap* map() const { return map_ ? &*map_ : nullptr; }
  Transformer& model() { return engine_.model(); }
  ParameterStore& store() { return engine_.parameters(); }
  Optimizer& optimizer() { return engine_.optimizer(); }

 private:
  static Config alone(Config config) {
    config.parallel.data = config.parallel.tensor = 1;
    return config;
  }
  static void draw(Tensor x, const Philox& rng, float stddev) {
    for (std::int64_t i = 0; i < x.numel(); ++i) x.f32()[i] = stddev * rng.normal(static_cast<std::uint64_t>(i));
  }
  std::optional<CodeMap> make_map() const {
    if (const auto* adaptive = adaptive_of(config_.head)) {
      std::vector<std::int64_t> counts(static_cast<std::size_t>(config_.model.vocab_size));
      for (std::size_t v = 0; v < counts.size(); ++v)
        counts[v] = static_cast<std::int64_t>(Philox(5, "counts").below(v, 1000));
      return make_band_map(*adaptive, counts);
    }
    const VqHeadConfig* const head = vq_of(config_.head);
    if (head == nullptr) return std::nullopt;
    return make_random_map(config_.model.vocab_size, head->clusters, head->groups(), head->codes(), 5);
  }

  Config config_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_;
  std::optional<CodeMap> map_;
  Engine engine_;
};

/// The bytes of a tensor in host memory, for comparisons bit by bit.
inline std::string bytes_of(Tensor x) {
  return {static_cast<const char*>(x.data()), x.bytes()};
}
inline std::string bytes_of(const std::vector<float>& x) {
  return {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float)};
}

}  // namespace vqlm::testing
