// SelfCommunicator: a group of one rank. Collectives are copies, or nothing where input and output are the
// same memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

class SelfCommunicator final : public Communicator {
 public:
  /// `backend` makes the copies, so tensors may live on its device; it must outlive the communicator.
  SelfCommunicator(Backend& backend, std::string name) : backend_(&backend), name_(std::move(name)) {}
  /// For host memory alone, as MpiCommunicator: every call has finished when it returns.
  explicit SelfCommunicator(std::string name) : name_(std::move(name)) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  const std::string& name() const override { return name_; }

  Event all_reduce(Tensor x, Reduce op, Stream stream) override;
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override;
  Event all_gather(Tensor out, Tensor in, Stream stream) override;
  Event all_to_all(Tensor out, Tensor in, Stream stream) override;
  Event all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                     std::span<const std::int64_t> in_counts, Stream stream) override;
  Event broadcast(Tensor x, int root, Stream stream) override;
  void barrier() override {}

 private:
  Event copy(Tensor out, Tensor in, Stream stream);

  Backend* backend_ = nullptr;  // none: host memory
  std::string name_;
};

}  // namespace vqlm
