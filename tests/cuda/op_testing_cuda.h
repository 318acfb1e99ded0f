// What every op test of the CUDA back end needs on top of tests/core/op_testing.h: arrays in device memory with guard
// bytes, bf16 on the host, and a fixture with the device and the CPU back end as its oracle.
//
// The pattern: make inputs that bf16 holds exactly (random_bf16), upload them, run the op on the device and on the CPU,
// download, and compare with expect_close and a bound of the form  u16 * |y| + c * u32 * sum(|a| |b|): one rounding of the
// output and the float sums of both sides. Data moves by copy_from_host and copy_to_host only, so that one source runs on
// a GPU and on the host executor (tests/simt).
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "tests/core/op_testing.h"

namespace vqlm::testing {

/// Unit roundoff of bf16 (8 bits of significand): one rounding to nearest has a relative error of at most this.
inline constexpr double u16 = 0x1p-8;

/// The bits of the bf16 nearest to x, ties to even; a NaN stays one.
inline std::uint16_t bf16_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float bf16_value(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline float round_to_bf16(float x) {
  return bf16_value(bf16_bits(x));
}

/// random_normal rounded to bf16: an operand that both back ends read without a further rounding. (Integers up to 256 in
/// size are exact, too: random_integers.)
inline HostF32 random_bf16(Shape shape, std::string_view name, float scale = 1) {
  HostF32 x = random_normal(shape, name, scale);
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = round_to_bf16(x[i]);
  return x;
}

/// Elements in device memory between guard bytes, which catch an op that writes beside them (checked on destruction).
/// Move only. `offset` elements are left out in front, so that a launcher meets pointers that are not aligned to 16 bytes.
class DeviceArray {
 public:
  /// Undefined contents: every byte is 0xff, so bf16, f32 and f64 are NaN and i32 is -1.
  DeviceArray(Backend& device, Shape shape, DType dtype, std::int64_t offset = 0)
      : device_(&device),
        begin_(guard_bytes + static_cast<std::size_t>(offset) * size_of(dtype)),
        bytes_(static_cast<std::size_t>(shape.numel()) * size_of(dtype)),
        buffer_(device.allocate(begin_ + bytes_ + guard_bytes, MemoryUse::workspace)),
        tensor_(static_cast<std::byte*>(buffer_.data()) + begin_, dtype, shape) {
    std::vector<std::uint8_t> block(buffer_.bytes(), guard);
    std::memset(block.data() + begin_, 0xff, bytes_);
    device_->copy_from_host(whole(), block.data());
  }

  /// A copy of host memory; f32 is rounded to nearest even where dtype is bf16.
  template <class T>
  DeviceArray(Backend& device, const HostArray<T>& host, DType dtype, std::int64_t offset = 0)
      : DeviceArray(device, host.shape(), dtype, offset) {
    if (host.size() == 0) return;
    if (dtype == DType::bf16) {
      std::vector<std::uint16_t> rounded;
      for (T value : host.values()) rounded.push_back(bf16_bits(static_cast<float>(value)));
      device_->copy_from_host(tensor_, rounded.data());
    } else {
      VQLM_ASSERT(dtype == dtype_of<T>());
      device_->copy_from_host(tensor_, host.values().data());
    }
  }
  template <class T>
  DeviceArray(Backend& device, const HostArray<T>& host) : DeviceArray(device, host, dtype_of<T>()) {}

  DeviceArray(DeviceArray&&) noexcept = default;
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (buffer_.data() == nullptr) return;  // moved from
    device_->synchronize();
    std::vector<std::uint8_t> block(buffer_.bytes());
    device_->copy_to_host(block.data(), whole());
    for (std::size_t i = 0; i < block.size(); ++i) {
      if (i >= begin_ && i < begin_ + bytes_) continue;
      if (block[i] == guard) continue;
      ADD_FAILURE() << "an op wrote " << (i < begin_ ? "in front of" : "behind the end of ") << name_of(tensor_.dtype())
                    << " " << tensor_.shape().str() << ", byte "
                    << static_cast<std::int64_t>(i) - static_cast<std::int64_t>(begin_);
      return;
    }
  }

  Tensor tensor() const { return tensor_; }
  operator Tensor() const { return tensor_; }  // NOLINT: op calls read as in the contract

  /// The contents once the device has done what was enqueued; bf16 comes as float.
  template <class T = float>
  HostArray<T> download() const {
    HostArray<T> host(tensor_.shape());
    device_->synchronize();
    if (host.size() == 0) return host;
    if constexpr (std::is_same_v<T, float>) {
      if (tensor_.dtype() == DType::bf16) {
        std::vector<std::uint16_t> bits(static_cast<std::size_t>(host.size()));
        device_->copy_to_host(bits.data(), tensor_);
        for (std::int64_t i = 0; i < host.size(); ++i) host[i] = bf16_value(bits[static_cast<std::size_t>(i)]);
        return host;
      }
    }
    VQLM_ASSERT(tensor_.dtype() == dtype_of<T>());
    device_->copy_to_host(host.tensor().data(), tensor_);
    return host;
  }

 private:
  static constexpr std::size_t guard_bytes = 64;  // keeps the alignment of allocate()
  static constexpr std::uint8_t guard = 0x5a;

  Tensor whole() const { return Tensor(buffer_.data(), DType::u8, {static_cast<std::int64_t>(buffer_.bytes())}); }

  Backend* device_;
  std::size_t begin_, bytes_;
  Buffer buffer_;
  Tensor tensor_;
};

/// |value| * u16 for each element, plus `rest`: the bound of a result that is rounded to bf16 once.
inline std::vector<double> rounded_once(const std::vector<double>& values, double rest = 0) {
  std::vector<double> bound;
  for (double value : values) bound.push_back(u16 * std::abs(value) + rest);
  return bound;
}

/// The fixture: an op runs on `device` in bf16 and on `oracle`, the CPU back end, in f32.
class CudaOpTest : public ::testing::Test {
 protected:
  /// Shorthands: an operand on the device.
  DeviceArray bf16(const HostF32& host, std::int64_t offset = 0) const {
    return DeviceArray(*device, host, DType::bf16, offset);
  }
  template <class T>
  DeviceArray upload(const HostArray<T>& host, std::int64_t offset = 0) const {
    return DeviceArray(*device, host, dtype_of<T>(), offset);
  }
  /// An output whose earlier contents are NaN.
  DeviceArray output(Shape shape, DType dtype = DType::bf16, std::int64_t offset = 0) const {
    return DeviceArray(*device, shape, dtype, offset);
  }

  std::unique_ptr<Backend> device = make_cuda_backend(0);
  // One thread: ThreadSanitizer, which watches the kernels on the host executor, does not know OpenMP's barriers.
  std::unique_ptr<Backend> oracle = make_cpu_backend(1);
};

}  // namespace vqlm::testing
