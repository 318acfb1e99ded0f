// The nearest matrix with orthonormal rows or columns, nearly: five steps of a quintic Newton-Schulz iteration (Jordan et
// al., "Muon: an optimizer for hidden layers in neural networks", 2024; its coefficients), by products in A.
#pragma once

#include <cstdint>

#include "core/backend.h"

namespace vqlm {

class NewtonSchulz {
 public:
  static constexpr int steps = 5;
  static constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;

  /// A matrix as it lies in memory: cut into `blocks` ranges of columns, one behind the other, each row-major.
  struct Layout {
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t blocks = 1;
  };

  /// Scratch for matrices of up to so many elements whose smaller side is at most `side`; the back end must outlive it.
  NewtonSchulz(Backend& backend, std::int64_t elements, std::int64_t side);

  /// x (rows * columns) f32, in place: with X = U S V^T, about U V^T; singular values above 0.0015 |X| come to lie between 0.68 and
  /// 1.21, smaller ones grow 485-fold at most. Zero
  /// stays zero. norm_squared (1) f64 is 0 before, and the sum of squares of x after. Products are of the whole matrix, whatever
  /// its blocks, so that the result does not depend on them.
  void run(Tensor x, const Layout& layout, Tensor norm_squared);

 private:
  /// One step of x (R, C) A, in place.
  void step(Tensor x);

  Backend& backend_;
  Buffer x_, other_;                  // (elements) A
  Buffer product_;                    // (elements) f32
  Buffer gram_, squared_;             // (side, side) f32
  Buffer gram_rounded_, polynomial_;  // (side, side) A
};

}  // namespace vqlm
