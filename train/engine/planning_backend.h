// PlanningBackend: a back end without a device. Its memory is addresses that nobody may touch, with the account of a real
// back end; its ops are checked, compute nothing and enter their cost into the machine's
// books. The program's own model and optimizer run on it, so that a plan cannot disagree with them.
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "train/engine/planned_machine.h"

namespace vqlm {

class PlanningBackend final : public Backend {
 public:
  /// activation: A, f32 or bf16. The machine must outlive the back end.
  PlanningBackend(PlannedMachine& machine, DType activation) : machine_(machine), activation_(activation) {}

  std::string description() const override { return "plan"; }
  /// As the back end it stands for: a host, or a GPU.
  bool computes() const override { return false; }
  bool host_accessible() const override { return activation_ == DType::f32; }
  DType activation_dtype() const override { return activation_; }
  std::int64_t class_multiple() const override { return host_accessible() ? 1 : gpu_class_multiple; }
  Buffer allocate(std::size_t bytes, MemoryUse use) override;
  MemoryAccount memory() const override { return memory_; }
  void copy(Tensor dst, Tensor src) override;
  void copy_from_host(Tensor dst, const void* src) override;
  /// dst becomes zeros.
  void copy_to_host(void* dst, Tensor src) override;
  void fill(Tensor x, float value) override;
  void round_to_activation(Tensor dst, Tensor src) override;
  /// 0.
  std::uint64_t fingerprint(Tensor x) override;

  // Events hold a time of the machine's clocks.
  Stream compute_stream() override { return {}; }
  Event record(Stream stream) override;
  void wait(Stream stream, const Event& event) override;
  void synchronize() override {}
  Event mark_time(Stream stream) override { return record(stream); }
  double seconds_between(const Event& begin, const Event& end) override;
  Graph capture(const std::function<void()>& work) override;
  void replay(const Graph& graph) override;

 private:
  void enqueue(const Op& op) override;
  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override;

  PlannedMachine& machine_;
  DType activation_;
  MemoryAccount memory_;
  // Above the addresses that Linux gives to a program unasked (2^47, or 2^48 on other machines), so that touching a
  // tensor is a fault at once.
  std::uintptr_t next_address_ = std::uintptr_t{1} << 54;
};

}  // namespace vqlm
