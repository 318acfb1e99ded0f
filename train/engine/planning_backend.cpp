#include "train/engine/planning_backend.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace vqlm {
namespace {

double time_of(const Event& event) {
  return event.handle() == nullptr ? 0.0 : *static_cast<const double*>(event.handle());
}

}  // namespace

Buffer PlanningBackend::allocate(std::size_t bytes, MemoryUse use) {
  constexpr std::uintptr_t alignment = 256;
  void* const data = reinterpret_cast<void*>(next_address_);
  next_address_ += (std::max<std::uintptr_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  std::size_t& used = memory_.in_use[static_cast<std::size_t>(use)];
  std::size_t& peak = memory_.peak[static_cast<std::size_t>(use)];
  used += bytes;
  peak = std::max(peak, used);
  const std::size_t total = std::accumulate(memory_.in_use.begin(), memory_.in_use.end(), std::size_t{0});
  memory_.peak_total = std::max(memory_.peak_total, total);
  return Buffer(*this, data, bytes, use);
}

void PlanningBackend::enqueue(const Op& op) {
  std::visit([this](const auto* value) { machine_.add_op(value->name, value->cost()); }, op);
}

void PlanningBackend::deallocate(void* /*data*/, std::size_t bytes, MemoryUse use) noexcept {
  memory_.in_use[static_cast<std::size_t>(use)] -= bytes;
}

void PlanningBackend::copy(Tensor dst, Tensor src) {
  VQLM_ASSERT(dst.dtype() == src.dtype() && dst.numel() == src.numel());
  machine_.add_op("copy", cost_of({src}, {dst}));
}

void PlanningBackend::copy_from_host(Tensor dst, const void* /*src*/) {
  machine_.add_op("copy_from_host", cost_of({}, {dst}));
}

void PlanningBackend::copy_to_host(void* dst, Tensor src) {
  std::memset(dst, 0, src.bytes());
  machine_.add_op("copy_to_host", cost_of({src}, {}));
}

void PlanningBackend::fill(Tensor x, float /*value*/) {
  machine_.add_op("fill", cost_of({}, {x}));
}

void PlanningBackend::round_to_activation(Tensor dst, Tensor src) {
  VQLM_ASSERT(dst.numel() == src.numel());
  check_dtype(activation_, {dst});
  check_dtype(DType::f32, {src});
  machine_.add_op("round_to_activation", cost_of({src}, {dst}));
}

std::uint64_t PlanningBackend::fingerprint(Tensor x) {
  machine_.add_op("fingerprint", cost_of({x}, {}));
  return 0;
}

Event PlanningBackend::record(Stream /*stream*/) {
  return Event(std::make_shared<double>(machine_.now()));
}

void PlanningBackend::wait(Stream /*stream*/, const Event& event) {
  machine_.wait_until(time_of(event));
}

double PlanningBackend::seconds_between(const Event& begin, const Event& end) {
  return time_of(end) - time_of(begin);
}

Graph PlanningBackend::capture(const std::function<void()>& work) {
  return Graph(std::make_shared<std::function<void()>>(work));
}

void PlanningBackend::replay(const Graph& graph) {
  (*static_cast<const std::function<void()>*>(graph.handle()))();
}

}  // namespace vqlm
