// TimingBackend: a back end that forwards every call to another one and keeps the seconds of each op. It shows where a
// step's time goes without a word about it in the model.
#pragma once

#include <string_view>
#include <vector>

#include "core/backend.h"
#include "train/engine/stopwatch.h"

namespace vqlm {

/// What the calls of one op took together.
struct OpTime {
  std::string_view name;  // as in core/ops; matrix products by the transposes of their operands
  std::int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  // OpCost's
};

class TimingBackend : public Backend {
 public:
  /// `inner` does the work and owns the memory; it must outlive this object and every buffer made through it.
  explicit TimingBackend(Backend& inner, Clock clock = wall_seconds) : inner_(inner), clock_(clock) {}

  /// Forgets what was measured and begins to measure. On a device each op stands between two time marks of the compute
  /// stream, which cost a few microseconds an op: measure whole steps while stopped.
  void start();
  void stop() { running_ = false; }
  /// The slowest op first; waits for the device. What capture() records is not measured, a replayed graph as one op.
  std::vector<OpTime> times();

  std::string description() const override { return inner_.description(); }
  bool host_accessible() const override { return inner_.host_accessible(); }
  DType activation_dtype() const override { return inner_.activation_dtype(); }
  std::int64_t class_multiple() const override { return inner_.class_multiple(); }
  Buffer allocate(std::size_t bytes, MemoryUse use) override { return inner_.allocate(bytes, use); }
  MemoryAccount memory() const override { return inner_.memory(); }
  void copy(Tensor dst, Tensor src) override;
  void copy_from_host(Tensor dst, const void* src) override;
  void copy_to_host(void* dst, Tensor src) override;
  void fill(Tensor x, float value) override;
  void round_to_activation(Tensor dst, Tensor src) override;
  std::uint64_t fingerprint(Tensor x) override;
  Stream compute_stream() override { return inner_.compute_stream(); }
  Event record(Stream stream) override { return inner_.record(stream); }
  void wait(Stream stream, const Event& event) override { inner_.wait(stream, event); }
  void synchronize() override { inner_.synchronize(); }
  Event mark_time(Stream stream) override { return inner_.mark_time(stream); }
  double seconds_between(const Event& begin, const Event& end) override { return inner_.seconds_between(begin, end); }
  Graph capture(const std::function<void()>& work) override;
  void replay(const Graph& graph) override;

 protected:
  void enqueue(const Op& op) override;

 private:
  /// Buffers belong to `inner`, so nothing is ever given back here.
  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override;
  template <class Work>
  void measure(std::string_view name, double flops, const Work& work);
  OpTime& entry(std::string_view name);

  /// An op on a device whose time is not known yet.
  struct Marked {
    std::string_view name;
    Event begin, end;
  };

  Backend& inner_;
  Clock clock_;
  bool running_ = false;
  std::vector<OpTime> times_;
  std::vector<Marked> marked_;
};

}  // namespace vqlm
