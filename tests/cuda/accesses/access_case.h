// What the cases share whose accesses to memory are counted: operands by shape, kept until the case's end. Results are not
// looked at, that is the op tests' business; shapes are small in rows and as wide as a model's.
#pragma once

#include <list>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {

class AccessCase : public CudaOpTest {
 protected:
  ~AccessCase() override { device->synchronize(); }

  /// Random activations; their address is `offset` elements behind a multiple of 64 bytes.
  Tensor activations(Shape shape, std::int64_t offset = 0) {
    return keep(bf16(random_bf16(shape, "activations", 0.5f), offset));
  }
  Tensor reals(Shape shape, std::int64_t offset = 0) { return keep(upload(random_normal(shape, "reals"), offset)); }
  Tensor positive(Shape shape) { return keep(upload(HostF32(shape, 0.75f))); }
  Tensor doubles(Shape shape, double value) { return keep(upload(HostF64(shape, value))); }
  /// Of [low, high], uniform.
  Tensor ids(Shape shape, std::int64_t low, std::int64_t high) {
    return keep(upload(random_integers<std::int32_t>(shape, "ids", low, high)));
  }
  template <class T>
  Tensor copy_of(const HostArray<T>& host) {
    return keep(upload(host));
  }
  Tensor room(Shape shape, DType dtype) { return keep(output(shape, dtype)); }

 private:
  Tensor keep(DeviceArray array) {
    kept_.push_back(std::move(array));
    return kept_.back();
  }
  std::list<DeviceArray> kept_;
};

}  // namespace vqlm::testing
