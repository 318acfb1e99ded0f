#include "train/tools/bench/timing_backend.h"

#include <algorithm>

namespace vqlm {
namespace {

template <class O>
std::string_view name_of(const O& op) {
  return op.name;
}

/// Products by what they are for in a layer y = x W^T.
std::string_view name_of(const Matmul& op) {
  if (op.ta == Transpose::yes) return op.tb == Transpose::yes ? "matmul a^T b^T" : "matmul a^T b (dW)";
  return op.tb == Transpose::yes ? "matmul a b^T (y)" : "matmul a b (dx)";
}

}  // namespace

void TimingBackend::start() {
  times_.clear();
  marked_.clear();
  inner_.synchronize();
  running_ = true;
}

std::vector<OpTime> TimingBackend::times() {
  for (const Marked& op : marked_) entry(op.name).seconds += inner_.seconds_between(op.begin, op.end);
  marked_.clear();
  std::vector<OpTime> sorted = times_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  return sorted;
}

OpTime& TimingBackend::entry(std::string_view name) {
  auto found = std::find_if(times_.begin(), times_.end(), [&](const OpTime& time) { return time.name == name; });
  if (found == times_.end()) found = times_.insert(times_.end(), OpTime{.name = name});
  return *found;
}

template <class Work>
void TimingBackend::measure(std::string_view name, double flops, const Work& work) {
  if (!running_) return work();
  if (inner_.host_accessible()) {
    const double begin = clock_();
    work();
    entry(name).seconds += clock_() - begin;
  } else {
    Event begin = inner_.mark_time(inner_.compute_stream());
    work();
    marked_.push_back({name, std::move(begin), inner_.mark_time(inner_.compute_stream())});
  }
  ++entry(name).calls;
  entry(name).flops += flops;
}

void TimingBackend::enqueue(const Op& op) {
  std::visit([this](const auto* value) { measure(name_of(*value), value->cost().flops, [&] { inner_.run(*value); }); },
             op);
}

Graph TimingBackend::capture(const std::function<void()>& work) {
  // What is recorded does not run now, and marks between its ops would be recorded, too.
  const bool was_running = running_;
  running_ = false;
  Graph graph = inner_.capture(work);
  running_ = was_running;
  return graph;
}
void TimingBackend::replay(const Graph& graph) {
  measure("replay", 0, [&] { inner_.replay(graph); });
}

void TimingBackend::deallocate(void*, std::size_t, MemoryUse) noexcept {
  VQLM_ASSERT(false && "buffers belong to the inner back end");
}

void TimingBackend::copy(Tensor dst, Tensor src) {
  measure("copy", 0, [&] { inner_.copy(dst, src); });
}
void TimingBackend::copy_from_host(Tensor dst, const void* src) {
  measure("copy_from_host", 0, [&] { inner_.copy_from_host(dst, src); });
}
void TimingBackend::copy_to_host(void* dst, Tensor src) {
  measure("copy_to_host", 0, [&] { inner_.copy_to_host(dst, src); });
}
void TimingBackend::fill(Tensor x, float value) {
  measure("fill", 0, [&] { inner_.fill(x, value); });
}

void TimingBackend::round_to_activation(Tensor dst, Tensor src) {
  measure("round_to_activation", 0, [&] { inner_.round_to_activation(dst, src); });
}
std::uint64_t TimingBackend::fingerprint(Tensor x) {
  std::uint64_t result = 0;
  measure("fingerprint", 0, [&] { result = inner_.fingerprint(x); });
  return result;
}

}  // namespace vqlm
