#include "core/cpu/cpu_backend.h"

#include <omp.h>
#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <string_view>

#include "core/cpu/instruction_set.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm {
namespace {

std::string_view name_of(MemoryUse use) {
  switch (use) {
    case MemoryUse::parameters:
      return "parameters";
    case MemoryUse::gradients:
      return "gradients";
    case MemoryUse::optimizer:
      return "optimizer";
    case MemoryUse::activations:
      return "activations";
    case MemoryUse::workspace:
      return "workspace";
  }
  return "?";
}

void copy_bytes(void* dst, const void* src, std::size_t bytes) {
  auto* const to = static_cast<std::byte*>(dst);
  const auto* const from = static_cast<const std::byte*>(src);
  cpu::parallel_blocks(static_cast<std::int64_t>(bytes), std::int64_t{1} << 20,
                       [&](std::int64_t begin, std::int64_t end) {
                         std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
                       });
}

template <class T>
void fill_elements(Tensor x, T value) {
  T* const data = x.as<T>();
  cpu::parallel_blocks(x.numel(), std::int64_t{1} << 18,
                       [&](std::int64_t begin, std::int64_t end) { std::fill(data + begin, data + end, value); });
}

/// Work is done when a call returns, so streams and events are empty.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) : threads_(threads) {}

  std::string description() const override {
    return fmt::format("cpu ({}, {} thread{})", cpu::instruction_set(), threads_, threads_ == 1 ? "" : "s");
  }
  bool host_accessible() const override { return true; }
  DType activation_dtype() const override { return DType::f32; }
  std::int64_t class_multiple() const override { return 1; }

  Buffer allocate(std::size_t bytes, MemoryUse use) override;
  MemoryAccount memory() const override {
    const std::lock_guard lock(memory_mutex_);
    return memory_;
  }
  void copy(Tensor dst, Tensor src) override {
    VQLM_ASSERT(dst.dtype() == src.dtype() && dst.numel() == src.numel());
    use_threads();
    copy_bytes(dst.data(), src.data(), src.bytes());
  }
  void copy_from_host(Tensor dst, const void* src) override {
    use_threads();
    copy_bytes(dst.data(), src, dst.bytes());
  }
  void copy_to_host(void* dst, Tensor src) override {
    use_threads();
    copy_bytes(dst, src.data(), src.bytes());
  }
  void fill(Tensor x, float value) override {
    use_threads();
    switch (x.dtype()) {
      case DType::f32:
        return fill_elements(x, value);
      case DType::f64:
        return fill_elements(x, static_cast<double>(value));
      case DType::i32:
        return fill_elements(x, static_cast<std::int32_t>(value));
      default:
        VQLM_ASSERT(false && "fill: dtype");
    }
  }

  void round_to_activation(Tensor dst, Tensor src) override { copy(dst, src); }
  std::uint64_t fingerprint(Tensor x) override {
    use_threads();
    return cpu::fingerprint(x);
  }

  Stream compute_stream() override { return {}; }
  Event record(Stream) override { return {}; }
  void wait(Stream, const Event&) override {}
  void synchronize() override {}
  Event mark_time(Stream) override { return Event(std::make_shared<Clock::time_point>(Clock::now())); }
  double seconds_between(const Event& begin, const Event& end) override {
    const auto at = [](const Event& mark) { return *static_cast<const Clock::time_point*>(mark.handle()); };
    return std::chrono::duration<double>(at(end) - at(begin)).count();
  }
  Graph capture(const std::function<void()>& work) override {
    return Graph(std::make_shared<std::function<void()>>(work));
  }
  void replay(const Graph& graph) override { (*static_cast<const std::function<void()>*>(graph.handle()))(); }

 private:
  using Clock = std::chrono::steady_clock;

  void enqueue(const Op& op) override {
    use_threads();
    std::visit([](const auto* value) { cpu::run(*value); }, op);
  }

  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override;

  /// OpenMP keeps the number of threads per calling thread, and oneDNN follows it: set it where the op is
  /// called.
  void use_threads() const { omp_set_num_threads(threads_); }

  int threads_;
  mutable std::mutex memory_mutex_;  // buffers may be freed by another thread (checkpoint writer)
  MemoryAccount memory_;
};

Buffer CpuBackend::allocate(std::size_t bytes, MemoryUse use) {
  // Large blocks start on a huge page: the kernel's default (madvise) gives huge pages only where they are
  // asked for.
  constexpr std::size_t cache_line = 64, huge_page = std::size_t{2} << 20;
  const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : cache_line;
  const std::size_t padded = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* const data = padded < bytes ? nullptr : std::aligned_alloc(alignment, padded);
  const std::lock_guard lock(memory_mutex_);
  const std::size_t in_use = std::accumulate(memory_.in_use.begin(), memory_.in_use.end(), std::size_t{0});
  if (data == nullptr) {
    throw Error(
        fmt::format("cpu: cannot allocate {} bytes of {} with {} bytes in use; choose a smaller "
                    "train.micro_batch or model, or use more ranks",
                    bytes, name_of(use), in_use));
  }
  if (alignment == huge_page) madvise(data, padded, MADV_HUGEPAGE);  // advice only: a refusal changes nothing
  std::size_t& used = memory_.in_use[static_cast<std::size_t>(use)];
  std::size_t& peak = memory_.peak[static_cast<std::size_t>(use)];
  used += bytes;
  peak = std::max(peak, used);
  memory_.peak_total = std::max(memory_.peak_total, in_use + bytes);
  return Buffer(*this, data, bytes, use);
}

void CpuBackend::deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept {
  std::free(data);
  const std::lock_guard lock(memory_mutex_);
  memory_.in_use[static_cast<std::size_t>(use)] -= bytes;
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  if (threads < 1) throw UsageError(fmt::format("cpu: {} threads asked for; give 1 or more", threads));
  return std::make_unique<CpuBackend>(threads);
}

}  // namespace vqlm
