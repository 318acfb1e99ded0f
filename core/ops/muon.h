// The optimizer Muon's ops (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024), which
// train/engine/muon.h puts together with products.
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// Nesterov's momentum over flat ranges (n), g the clipped gradient (as in AdamW):
///   m = momentum m + (1 - momentum) g,  direction = (1 - momentum) g + momentum m;
/// direction is overwritten. Where norm_squared (1) f64 is not finite, m stays and direction is 0.
struct MuonMomentum {
  static constexpr std::string_view name = "muon_momentum";
  Tensor m;
  Tensor direction;
  Tensor grad;
  Tensor norm_squared;
  float momentum;
  float max_norm;  // of the global gradient; 0: no clipping

  void check(DType a) const;
  OpCost cost() const;
};

/// out (n) A or f32 = x_scale x (n) A or f32 [/ max(sqrt(norm_squared), 1e-7)] + y_scale y (n) f32; overwritten, and out may
/// alias x or y of its own dtype. y and norm_squared (1) f64 may be absent.
struct AddScaled {
  static constexpr std::string_view name = "add_scaled";
  Tensor out;
  Tensor x;
  Tensor y = {};
  Tensor norm_squared = {};
  float x_scale = 1;
  float y_scale = 0;
  static constexpr double smallest_norm = 1e-7;

  void check(DType a) const;
  OpCost cost() const;
};

/// param (n) = keep_param param - step_size direction (n), in place; `rounded` as in AdamW. Nothing changes where norm_squared
/// (1) f64 is not finite.
struct MuonUpdate {
  static constexpr std::string_view name = "muon_update";
  Tensor param;
  Tensor rounded = {};
  Tensor direction;
  Tensor norm_squared;
  float keep_param;  // 1 - rate * weight decay
  float step_size;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
