#include "train/tools/bench/synthetic_training.h"

#include <string>

#include "core/model/head/band_map.h"
#include "train/tools/bench/synthetic_tokens.h"

namespace vqlm {

SyntheticTraining::SyntheticTraining(Backend& backend, const ProcessGrid& grid, const Config& config)
    : grid_(grid),
      config_(config),
      counts_(synthetic_counts(TokenDistribution::zipf, config.model.vocab_size)),
      map_(make_map()),
      engine_(backend, grid, config, map_ ? &*map_ : nullptr) {
  model().initialize(seed(), counts_);
  draw_tokens(0);
}

void SyntheticTraining::draw_tokens(std::int64_t draw) {
  const std::int64_t rows = model().batch().rows();
  for (std::int64_t number = 0; number < micro_batches_of(config_); ++number) {
    const std::string place = draw == 0 ? "" : "draw " + std::to_string(draw) + " ";
    const std::string stream =
        "bench tokens " + place + std::to_string(number) + " " + std::to_string(grid_.data_rank());
    const std::vector<std::int32_t> text = vqlm::draw_tokens(counts_, rows + 1, seed(), stream);
    engine_.micro_batches().set(number, {{text.begin(), text.end() - 1}, {text.begin() + 1, text.end()}});
  }
}

void SyntheticTraining::step() {
  engine_.step(++steps_, config_.optim.lr);
}

void SyntheticTraining::step_by_ops() {
  engine_.micro_batches().enqueue_directly();
  engine_.update(++steps_, config_.optim.lr);
}

std::optional<CodeMap> SyntheticTraining::make_map() const {
  if (const auto* adaptive = adaptive_of(config_.head)) return make_band_map(*adaptive, counts_);
  const VqHeadConfig* const head = vq_of(config_.head);
  if (head == nullptr) return std::nullopt;
  if (head->map == "random") {
    return make_random_map(config_.model.vocab_size, head->clusters, head->groups(), head->codes(), seed());
  }
  return make_frequency_map(counts_, head->clusters, head->groups(), head->codes(), seed());
}

}  // namespace vqlm
