// A communicator that forwards every call: tests override the one that is to go wrong.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "core/communicator.h"
#include "dist/process_grid.h"
#include "tests/ranks.h"

namespace vqlm::testing {

class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }
  Event all_reduce(Tensor x, Reduce op, Stream stream) override { return inner_->all_reduce(x, op, stream); }
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override {
    return inner_->reduce_scatter(out, in, op, stream);
  }
  Event all_gather(Tensor out, Tensor in, Stream stream) override { return inner_->all_gather(out, in, stream); }
  Event all_to_all(Tensor out, Tensor in, Stream stream) override { return inner_->all_to_all(out, in, stream); }
  Event all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                     std::span<const std::int64_t> in_counts, Stream stream) override {
    return inner_->all_to_all_v(out, out_counts, in, in_counts, stream);
  }
  Event broadcast(Tensor x, int root, Stream stream) override { return inner_->broadcast(x, root, stream); }
  void barrier() override { inner_->barrier(); }

 private:
  std::unique_ptr<Communicator> inner_;
};

/// The grid of data x tensor ranks whose communicators are of type Wrapper, made from (inner, arguments...).
template <class Wrapper, class... Arguments>
ProcessGrid wrapped_grid(int tensor_size, Arguments&... arguments) {
  const int rank = session().rank(), data = rank / tensor_size, tensor = rank % tensor_size;
  const auto group = [&](int color, int key, const char* name) {
    return std::make_unique<Wrapper>(session().split(color, key, name), arguments...);
  };
  auto world = group(0, rank, "world");
  auto data_group = group(tensor, data, "data");
  return ProcessGrid(std::move(world), std::move(data_group), group(data, tensor, "tensor"));
}

}  // namespace vqlm::testing
