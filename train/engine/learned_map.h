// head.map = "learned" in a run: gathers the hidden states of a window of steps, and at its end re-fits the code map and carries
// the head over to it, on all ranks the same. docs/heads.md has the reasons.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/model/transformer.h"
#include "core/model/head/vq_head.h"
#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/engine/gradient_accumulator.h"
#include "train/engine/hidden_rows.h"
#include "train/codes/map_refit.h"
#include "train/engine/optimizer.h"

namespace vqlm {

/// Whether the map is re-fit after this step: a multiple of refit_every up to refit_until. config must be resolved.
bool refits_after(const Config& config, std::int64_t step);
/// Whether a step is part of a window that ends in a re-fit.
bool in_refit_window(const Config& config, std::int64_t step);

/// One re-fit, the same numbers on every rank.
struct RefitReport {
  double moved_tokens = 0;  // the share of tokens whose cluster changed,
  double moved_mass = 0;    // and of the training shards' tokens
  double rows = 0;          // hidden states that it was fitted to
  double loss_before =
      0;  // of the step's last micro-batch, with the updated parameters, before and after the re-fit; nats
  double loss_after = 0;
  double seconds = 0;  // all of it, on this rank
};

class LearnedMap {
 public:
  struct Parts {
    Backend& backend;
    const ProcessGrid& grid;
    const Config& config;
    const std::vector<std::int64_t>& counts;  // (V) of the training shards
    Transformer& model;
    Optimizer& optimizer;
    GradientAccumulator& accumulator;
    CodeMap& map;  // in use; a re-fit writes the next one there
  };
  /// Everything must outlive the object. The accumulator is told to keep the hidden states while step + 1 is in a window. `sums`:
  /// of the unfinished window in the checkpoint that the run goes on from, none where it has none. Throws UsageError where
  /// they have other sizes than the configuration says.
  LearnedMap(Parts parts, std::int64_t step, const std::optional<ClassSums>& sums);

  /// Adds the rows of the step that has ended, where it is in a window. Its gradient must have been finite.
  void add_step(std::int64_t step);
  /// The re-fit after `step`, where refits_after(). Collective. Throws Error, the same on every rank, where map or codebooks
  /// differ between ranks afterwards.
  RefitReport refit(std::int64_t step);
  /// What a checkpoint after `step` must hold of an unfinished window, on rank 0; none elsewhere, and where no window is
  /// unfinished. Collective.
  std::optional<ClassSums> unfinished(std::int64_t step) const;

 private:
  void broadcast(Refit& fit) const;
  void check_copies(std::int64_t step) const;
  double micro_batch_loss() const;
  void gather_rows(std::int64_t next_step);

  Parts parts_;
  VqHead& head_;
  HiddenRows rows_;
  ClassSums sums_;
};

}  // namespace vqlm
