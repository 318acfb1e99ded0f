// AdamW, or Muon for the hidden matrices (muon.h), with ZeRO-1 over the process grid: gradients are reduced bucket by bucket
// while backward runs, every data rank updates its own range of the flat parameters and holds moments for that range only, and
// the updated parameters are gathered again, bucket by bucket while the next forward pass runs (parameter_gathers.h). Moving
// averages (UpdateRule) travel the same way: their sums are reduced with the gradients, averaged by their owners and gathered;
// they are no part of the gradient norm.
#pragma once

#include <optional>
#include <vector>

#include "core/backend.h"
#include "core/model/ngram_tables.h"
#include "core/parameters.h"
#include "dist/gradient_buckets.h"
#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/engine/muon.h"
#include "train/engine/parameter_gathers.h"
#include "train/engine/row_update.h"

namespace vqlm {

class Optimizer {
 public:
  /// All must outlive the optimizer; the store must be allocated for training. grad_clip: largest global gradient norm, 0
  /// = off. head_since: the step after which the head's own parameters were new: their moments count from there.
  /// tables: those with gradients by rows. in_forward: the buckets that step() leaves to gathers() and the next forward pass.
  Optimizer(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, const OptimSection& numbers,
            float grad_clip, Overlap overlap = Overlap::yes, std::int64_t head_since = 0,
            const std::vector<RowTable>& tables = {}, const std::vector<int>& in_forward = {});

  /// The step's tokens are known, and not yet its gradients: ranks tell each other which rows of tables they touch. Collective.
  void begin_step();
  /// Starts the reduction of a bucket whose gradients are complete (last micro-batch of a step).
  void bucket_ready(int bucket);
  /// Later work on the compute stream finds all reductions done; every bucket must have been ready.
  void finish_reductions();
  /// Clips and updates; after finish_reductions(). step counts from 1. Returns the global gradient norm before
  /// clipping; where it is not finite, nothing was updated.
  double step(std::int64_t step, float lr);
  /// How the updated values come to all data ranks.
  ParameterGathers& gathers() { return gathers_; }

  static constexpr std::int64_t not_there = -1;
  /// A part of a parameter that this rank's optimizer owns.
  struct OwnedSlice {
    ParameterId parameter = 0;
    std::int64_t begin = 0;  // in the rank's slice of the parameter, row-major
    std::int64_t count = 0;
    std::int64_t moment_begin = 0;  // in first_moment()
    std::int64_t second_begin = 0;  // in second_moment(); not_there where the update has none
  };
  /// Together over all ranks, every element of every logical tensor once, but that ranks beyond the first of a tensor group
  /// own copies of replicated parameters (is_primary tells).
  std::vector<OwnedSlice> owned_slices() const;
  /// False for a replicated parameter on all but the first tensor rank.
  bool is_primary(ParameterId id) const;

  Tensor first_moment() const { return moments_.view({owned_count_ + second_count_}).range(0, owned_count_); }
  Tensor second_moment() const {
    return moments_.view({owned_count_ + second_count_}).range(owned_count_, second_count_);
  }

 private:
  /// A range of the flat buffers that is updated in one way.
  struct Segment {
    std::int64_t flat_begin;
    std::int64_t count;
    std::int64_t moment_begin;
    std::int64_t second_begin;
    bool by_muon;
    bool counts_in_norm;
    UpdateRule rule;  // gradient or moving_average
    float average_decay;
    float lr_ratio;      // rate / the schedule's
    float decay_ratio;   // decay / optim.weight_decay
    std::int64_t since;  // the step after which the moments began at 0

    bool same_way(const Segment& other) const {
      return !by_muon && !other.by_muon && decay_ratio == other.decay_ratio && counts_in_norm == other.counts_in_norm &&
             since == other.since && rule == other.rule && average_decay == other.average_decay &&
             lr_ratio == other.lr_ratio;
    }
  };
  bool by_muon(const Parameter& parameter) const;
  void make_segments();
  /// Numbers that its moments take: of a table by rows with the padding, since its owner sees whole rows.
  std::int64_t room_of(const OwnedSlice& slice) const;
  void make_row_updates(const std::vector<RowTable>& tables);
  void update(std::int64_t step, float lr);

  Backend& backend_;
  const ProcessGrid& grid_;
  ParameterStore& parameters_;
  OptimSection numbers_;
  float grad_clip_;
  std::int64_t head_since_;
  GradientBuckets buckets_;
  ParameterGathers gathers_;
  std::vector<BucketRange> owned_;
  std::vector<Segment> segments_;
  std::int64_t owned_count_ = 0;
  std::int64_t second_count_ = 0;  // owned_count_, but for the hidden matrices where Muon updates them
  Buffer moments_;                 // (owned_count_ + second_count_): m, then v
  Buffer norm_squared_;            // (1) f64
  std::optional<Muon> muon_;
  struct Table {
    RowUpdate update;
    RoleRatios ratios;
  };
  std::vector<Table> tables_;  // in the order in which they were given
};

}  // namespace vqlm
