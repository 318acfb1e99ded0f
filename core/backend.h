// Backend: memory, streams, and the order in which the operations of core/ops run. Those say what they do; core/cpu and
// core/cuda hold one file per op with the same name.
//
// - Ops are enqueued on compute_stream() in call order; on the host they are done when they return.
// - Shapes and dtypes are checked with assertions (the caller's bug), by the ops themselves.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "core/buffer.h"
#include "core/ops/ops.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace vqlm {

/// Backend::class_multiple of a GPU: a tile of its products.
constexpr std::int64_t gpu_class_multiple = 64;

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- the device -------------------------------------------------------------------------------------------------
  /// "cpu (AVX3, 2 threads)", "cuda:0 NVIDIA H200".
  virtual std::string description() const = 0;
  /// True where host code may read and write tensors through their pointers.
  virtual bool host_accessible() const = 0;
  /// False where ops and copies only count: numbers that the host reads back say nothing.
  virtual bool computes() const { return true; }
  /// A: f32 or bf16.
  virtual DType activation_dtype() const = 0;
  /// A layer that makes logits pads them, and the rows of the matrix that it makes them with, to a multiple of so many
  /// classes: 1 on the host; gpu_class_multiple on a GPU, where rows of a product's operands must begin at multiples of 16
  /// bytes to be read fast.
  virtual std::int64_t class_multiple() const = 0;
  std::int64_t padded_classes(std::int64_t count) const {
    return (count + class_multiple() - 1) / class_multiple() * class_multiple();
  }

  // ---- memory -----------------------------------------------------------------------------------------------------
  /// A block aligned to at least 64 bytes, contents undefined. Throws Error with the bytes asked for and in use.
  virtual Buffer allocate(std::size_t bytes, MemoryUse use) = 0;
  /// Bytes in use now and at the peak, by MemoryUse.
  struct MemoryAccount {
    std::array<std::size_t, memory_use_count> in_use{};
    std::array<std::size_t, memory_use_count> peak{};
    std::size_t peak_total = 0;
  };
  virtual MemoryAccount memory() const = 0;
  /// dst and src: same dtype and number of elements, both on the device.
  virtual void copy(Tensor dst, Tensor src) = 0;
  /// Host memory to and from the device. src of the first may be changed as soon as it returns, and later work on
  /// compute_stream() finds it copied; the second has finished when it returns.
  virtual void copy_from_host(Tensor dst, const void* src) = 0;
  virtual void copy_to_host(void* dst, Tensor src) = 0;
  /// Sets every element (f32, bf16 or i32; i32 rounds value toward zero).
  virtual void fill(Tensor x, float value) = 0;
  /// dst (n) A = src (n) f32, rounded to nearest even; overwritten. A copy where A is f32.
  virtual void round_to_activation(Tensor dst, Tensor src) = 0;
  /// A number that tells contents apart: the sum over i of mix64(bits_i + (i + 1) * 0x9e3779b97f4a7c15) mod 2^64, mix64 the
  /// finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) and bits_i element i's bits as an integer. One changed
  /// element always changes it (mix64 is a bijection), other changes go unseen with a chance of 2^-64. x: f32 or bf16,
  /// any number of elements. The same on every back end; blocks the host until x is read.
  virtual std::uint64_t fingerprint(Tensor x) = 0;

  // ---- order ------------------------------------------------------------------------------------------------------
  virtual Stream compute_stream() = 0;
  virtual Event record(Stream stream) = 0;
  /// Later work on `stream` waits for `event`.
  virtual void wait(Stream stream, const Event& event) = 0;
  /// Blocks the host until everything enqueued so far is done.
  virtual void synchronize() = 0;
  /// A point of `stream` whose time will be known when the stream reaches it; wait() takes it, too.
  virtual Event mark_time(Stream stream) = 0;
  /// Seconds from one mark to a later one; blocks the host until both are reached.
  virtual double seconds_between(const Event& begin, const Event& end) = 0;
  /// Records what `work` enqueues, to be run again and again by replay() on the same tensors; does not run it. `work` must
  /// only enqueue: no copies from or to the host, no allocation, no synchronize; ops it calls must have run before (they
  /// size their workspace then). Host back ends keep the function itself. The graph holds on to the events that `work`
  /// waits for, by which a communicator knows that it is still in use.
  virtual Graph capture(const std::function<void()>& work) = 0;
  /// Enqueues a recorded graph on compute_stream().
  virtual void replay(const Graph& graph) = 0;
  /// Checks an op of core/ops and enqueues it: run(RmsnormForward{.y = y, ...}).
  template <class O>
  void run(const O& op) {
    op.check(activation_dtype());
    enqueue(&op);
  }

 private:
  friend class Buffer;
  /// Enqueues an op that is checked; the pointer is good for the call.
  virtual void enqueue(const Op& op) = 0;
  /// Gives a block back; called by ~Buffer only. Must not throw.
  virtual void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept = 0;
};

}  // namespace vqlm
