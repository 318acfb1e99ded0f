// SwiGLU and GeGLU (Shazeer, arXiv 2002.05202) of a fused projection gate_up (N, 2F) = [gate | up].
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// y (N, F) = silu(gate) * up; overwritten; all A.
struct SwigluForward {
  static constexpr std::string_view name = "swiglu_forward";
  Tensor y;
  Tensor gate_up;

  void check(DType a) const;
  OpCost cost() const;
};

/// dgate_up (N, 2F) overwritten from dy (N, F); may alias gate_up. All A.
struct SwigluBackward {
  static constexpr std::string_view name = "swiglu_backward";
  Tensor dgate_up;
  Tensor dy;
  Tensor gate_up;

  void check(DType a) const;
  OpCost cost() const;
};

/// y (N, F) = gelu(gate) * up, gelu in its tanh form (arXiv 1606.08415); overwritten; all A.
struct GegluForward {
  static constexpr std::string_view name = "geglu_forward";
  Tensor y;
  Tensor gate_up;

  void check(DType a) const;
  OpCost cost() const;
};

/// dgate_up (N, 2F) overwritten from dy (N, F); may alias gate_up. All A.
struct GegluBackward {
  static constexpr std::string_view name = "geglu_backward";
  Tensor dgate_up;
  Tensor dy;
  Tensor gate_up;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
