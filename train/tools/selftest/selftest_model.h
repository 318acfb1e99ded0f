// A model small enough to train a step in milliseconds on any grid, for vqlm selftest.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/engine/engine.h"

namespace vqlm {

/// Two layers of 2 * tensor heads of width 32 (which a GPU has kernels for), V = 509, which no grid divides; resolved for
/// data x tensor ranks.
Config selftest_config(HeadKind head, int data, int tensor);

/// Of what a step changes on this rank and the next one reads: parameters, as far as they are current here, and moments.
std::uint64_t fingerprint_of(Backend& backend, const ParameterStore& parameters, const Optimizer& optimizer);

class SelftestModel {
 public:
  /// Collective. Fresh parameters and moments, the same for the same head and grid. Both must outlive the model.
  SelftestModel(Backend& backend, const ProcessGrid& grid, HeadKind head);

  struct Step {
    double loss = 0;  // mean over the tokens of all ranks
    double norm = 0;  // of the gradient
  };
  /// One training step on tokens that its number gives, collective. `before_reduction` is called with each bucket whose
  /// gradients are complete on this rank and not yet reduced.
  Step step(const MicroBatches::BeforeReduction& before_reduction = {});

  /// Collective.
  std::uint64_t state() {
    gather_parameters();
    return fingerprint_of(backend_, parameters(), engine_.optimizer());
  }
  /// Brings in the values that other ranks have updated.
  void gather_parameters() { engine_.gather_parameters(); }
  ParameterStore& parameters() { return engine_.parameters(); }

 private:
  Backend& backend_;
  const ProcessGrid& grid_;
  Config config_;
  std::optional<CodeMap> map_;
  Engine engine_;
  std::int64_t steps_ = 0;
};

}  // namespace vqlm
