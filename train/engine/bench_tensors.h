// Arrays of random numbers for benchmarks.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/backend.h"

namespace vqlm {

/// x (f32, or the back end's activation dtype) becomes `scale` times normal numbers, a function of `name` alone, that
/// repeat after 2^20 elements. Random, since the speed of a GPU at its power limit depends on the bits: products of a
/// constant run 10 % faster than products of a model's numbers.
void fill_normal(Backend& backend, Tensor x, std::string_view name, float scale = 1.0f);

/// Uploads f32 numbers into x (f32, or the back end's activation dtype, rounded on the device).
void upload_numbers(Backend& backend, Tensor x, const std::vector<float>& numbers);

/// Owns a benchmark's arrays.
class BenchTensors {
 public:
  explicit BenchTensors(Backend& backend) : backend_(backend) {}
  /// Undefined contents.
  Tensor make(Shape shape, DType type);
  /// Normal numbers of the activation dtype, or f32.
  Tensor normal(Shape shape, DType type, float scale = 1.0f);

 private:
  Backend& backend_;
  std::vector<Buffer> buffers_;
};

}  // namespace vqlm
