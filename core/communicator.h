// The contract of collectives. A communicator is a group of ranks that call the same functions in the same order with
// the same counts (all_to_all_v: counts that match in pairs) and dtypes; dist/ implements it alone (self), over MPI and over
// NCCL.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/stream.h"
#include "core/tensor.h"

namespace vqlm {

enum class Reduce { sum, max };

/// Every call is enqueued on `stream` after the work already there and returns an event that is reached when the
/// result is in place; host communicators have finished when they return. The result is not in place on `stream` itself
/// before that event: device communicators work on a stream of their own, so whoever reads the result, or writes the
/// input again, waits for the event first. Tensors are contiguous and live in memory that the implementation can reach.
/// Dtypes: f32, f64, i32, and without reductions u8 and bf16; device communicators also reduce bf16 by Reduce::sum, in
/// fp32 or better within a rank and rounded where ranks exchange. P = size().
/// Sums are in rank order or a fixed tree of it: the same inputs give the same bits on every rank and in every run.
/// Over NCCL the order depends on the machine's topology, the count and the dtype, and on nothing else.
/// A failure throws Error naming the collective, the rank and the group.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// For messages: "data", "tensor", "world".
  virtual const std::string& name() const = 0;

  /// x (n), in place: the reduction over all ranks of their x.
  virtual Event all_reduce(Tensor x, Reduce op, Stream stream) = 0;
  /// out (n): this rank's n elements of the reduced in (P*n). out may be the rank's own part of in.
  virtual Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) = 0;
  /// out (P*n): the ranks' in (n), in rank order. in may be the rank's own part of out.
  virtual Event all_gather(Tensor out, Tensor in, Stream stream) = 0;
  /// in (P*n), out (P*n): block p of in goes to rank p; block p of out came from rank p. No aliasing.
  virtual Event all_to_all(Tensor out, Tensor in, Stream stream) = 0;
  /// As all_to_all with blocks of different sizes, one after the other in rank order: the p-th block of in, in_counts[p]
  /// elements, goes to rank p, and the p-th of out, out_counts[p], came from there. P counts each, any of them 0, whose sums
  /// are the tensors' sizes; in_counts[p] of rank q is out_counts[q] of rank p. No aliasing.
  virtual Event all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                             std::span<const std::int64_t> in_counts, Stream stream) = 0;
  /// x (n), in place: root's x on every rank.
  virtual Event broadcast(Tensor x, int root, Stream stream) = 0;
  /// Returns when every rank has called it (host-blocking). Not inside a group.
  virtual void barrier() = 0;

  /// While what is returned lives, nobody is blamed for being late: one rank does what takes it minutes (`why`, "counting
  /// tokens") while the others wait in a collective. Every rank opens the same scope, before that work, and leaves it after
  /// a collective that waits for it. Null where the communicator has no time-out.
  [[nodiscard]] virtual std::shared_ptr<void> expect_long_wait(const std::string& /*why*/) { return nullptr; }

  /// While what is returned lives, the main thread waits for a collective that another thread of this rank has begun: for
  /// those that watch the ranks. `collective` must live for ever.
  [[nodiscard]] virtual std::shared_ptr<void> inside(std::string_view /*collective*/) { return nullptr; }
  /// A collective that another thread waits in ends by an exception, and this communicator is of no more use: where a rank
  /// leaves by an exception. From any thread.
  virtual void abandon() {}

  /// Step `step` of a training begins: for those that watch the ranks. No collective.
  virtual void begin_step(std::int64_t /*step*/) {}

  /// The calls between group_begin() and group_end() may be launched as one, at group_end(): no call reads what another
  /// one of the group writes, no other communicator is used in between, and their events may be waited for from
  /// group_end() on. Every rank groups the same calls. Not nested. Host communicators run each call as it comes.
  virtual void group_begin() {}
  virtual void group_end() {}
};

/// Asserts what a rank can know of the operands of all_to_all_v: for implementations.
void check_all_to_all_v(const Communicator& group, Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                        std::span<const std::int64_t> in_counts);

}  // namespace vqlm
