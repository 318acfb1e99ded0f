// Arrays on the device for tests of collectives, holding small integers that every dtype has exactly. All copies are
// enqueued on one stream, as kernels of a training step would be, so that a collective that does not wait for its
// caller's stream, or a reader that does not wait for the collective, sees something else.
#pragma once

#include <cuda_runtime_api.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"
#include "dist/nccl_check.h"

namespace vqlm::testing {

inline void cuda(cudaError_t code, const char* call) {
  nccl_cuda_check(code, call, 0, "tests");
}

/// Integers as elements of `dtype`, and back.
inline std::vector<std::byte> encoded(const std::vector<int>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto put = [&](auto value) { std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value); };
    const auto single = static_cast<float>(values[i]);
    if (dtype == DType::f32) put(single);
    if (dtype == DType::f64) put(static_cast<double>(values[i]));
    if (dtype == DType::i32) put(static_cast<std::int32_t>(values[i]));
    if (dtype == DType::u8) put(static_cast<std::uint8_t>(values[i]));
    if (dtype == DType::bf16) put(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(single) >> 16));
  }
  return bytes;
}

inline std::vector<int> decoded(const std::vector<std::byte>& bytes, DType dtype) {
  std::vector<int> values(bytes.size() / size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto get = [&](auto value) {
      std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
      return value;
    };
    if (dtype == DType::f32) values[i] = static_cast<int>(get(0.0f));
    if (dtype == DType::f64) values[i] = static_cast<int>(get(0.0));
    if (dtype == DType::i32) values[i] = get(std::int32_t{});
    if (dtype == DType::u8) values[i] = get(std::uint8_t{});
    if (dtype == DType::bf16) {
      values[i] = static_cast<int>(std::bit_cast<float>(std::uint32_t{get(std::uint16_t{})} << 16));
    }
  }
  return values;
}

/// The stream of a step's kernels.
class ComputeStream {
 public:
  ComputeStream() { cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  ~ComputeStream() { nccl_cuda_log_failure(cudaStreamDestroy(stream_), "cudaStreamDestroy", 0, "tests"); }
  ComputeStream(const ComputeStream&) = delete;
  ComputeStream& operator=(const ComputeStream&) = delete;

  cudaStream_t get() const { return stream_; }
  operator Stream() const { return Stream{stream_}; }
  void wait(const Event& event) const {
    if (event.handle() == nullptr) return;
    cuda(cudaStreamWaitEvent(stream_, static_cast<cudaEvent_t>(event.handle()), 0), "cudaStreamWaitEvent");
  }
  void synchronize() const { cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

class DeviceArray {
 public:
  /// Poisoned, then `values` are copied in on the stream.
  DeviceArray(const ComputeStream& stream, const std::vector<int>& values, DType dtype)
      : stream_(stream),
        dtype_(dtype),
        count_(static_cast<std::int64_t>(values.size())),
        source_(encoded(values, dtype)) {
    cuda(cudaMalloc(&data_, source_.size() + 1), "cudaMalloc");
    cuda(cudaMemcpyAsync(data_, source_.data(), source_.size(), cudaMemcpyHostToDevice, stream.get()), "copy in");
  }
  ~DeviceArray() {
    nccl_cuda_log_failure(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize", 0, "tests");
    nccl_cuda_log_failure(cudaFree(data_), "cudaFree", 0, "tests");
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  Tensor view() const { return Tensor(data_, dtype_, {count_}); }
  Tensor range(std::int64_t begin, std::int64_t count) const { return view().range(begin, count); }
  /// What the stream sees now; waits for it.
  std::vector<int> values() const {
    std::vector<std::byte> bytes(source_.size());
    cuda(cudaMemcpyAsync(bytes.data(), data_, bytes.size(), cudaMemcpyDeviceToHost, stream_.get()), "copy out");
    stream_.synchronize();
    return decoded(bytes, dtype_);
  }

 private:
  const ComputeStream& stream_;
  DType dtype_;
  std::int64_t count_;
  std::vector<std::byte> source_;
  void* data_ = nullptr;
};

}  // namespace vqlm::testing
