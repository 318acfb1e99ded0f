#include "train/engine/bench_tensors.h"

#include <algorithm>
#include <string>

#include "core/rng.h"

namespace vqlm {

void upload_numbers(Backend& backend, Tensor x, const std::vector<float>& numbers) {
  VQLM_ASSERT(x.numel() == static_cast<std::int64_t>(numbers.size()));
  if (x.dtype() == DType::f32) return backend.copy_from_host(x, numbers.data());
  const Buffer storage = backend.allocate(numbers.size() * sizeof(float), MemoryUse::workspace);
  const Tensor staged = storage.view({x.numel()});
  backend.copy_from_host(staged, numbers.data());
  backend.round_to_activation(x.view({x.numel()}), staged);
  backend.synchronize();  // `storage` ends here
}

void fill_normal(Backend& backend, Tensor x, std::string_view name, float scale) {
  constexpr std::int64_t longest_period = 1 << 20;
  const std::int64_t period = std::min(x.numel(), longest_period);
  std::vector<float> numbers(static_cast<std::size_t>(period));
  const Philox rng(1, name);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = scale * rng.normal(i);
  const Tensor flat = x.range(0, x.numel());
  upload_numbers(backend, flat.range(0, period), numbers);
  for (std::int64_t begin = period; begin < x.numel(); begin += period) {
    const std::int64_t count = std::min(period, x.numel() - begin);
    backend.copy(flat.range(begin, count), flat.range(0, count));
  }
}

Tensor BenchTensors::make(Shape shape, DType type) {
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_of(type);
  buffers_.push_back(backend_.allocate(bytes, MemoryUse::workspace));
  return buffers_.back().view(shape, type);
}

Tensor BenchTensors::normal(Shape shape, DType type, float scale) {
  const Tensor x = make(shape, type);
  fill_normal(backend_, x, "bench tensor " + std::to_string(buffers_.size()), scale);
  return x;
}

}  // namespace vqlm
