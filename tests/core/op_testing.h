// What every op test needs: host arrays with guard elements, reproducible random contents, comparison against
// a double-precision reference with a derived bound, and central differences for backward ops.
//
// The pattern of an op test: fill HostArrays, call backend->op(...) with them, compute the same formula in
// double on x.doubles(), and compare with expect_close and a bound of the form  c * u32 * sum(|a| |b|). A
// backward op is checked against numeric_gradient of the double-precision forward reference, whose own error
// (below 1e-9 relative for smooth losses of order one) is far below float's.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/backend.h"
#include "core/cpu/cpu_backend.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace vqlm::testing {

/// Unit roundoff of float: one correctly rounded operation has a relative error of at most this.
inline constexpr double u32 = 0x1p-24;

/// Contiguous elements on the host, passed to ops as a Tensor. Guard elements behind the end catch an op that
/// writes too far (checked on destruction); a zero-size array is present, not absent. Move only, so that a
/// Tensor made from it stays valid.
template <class T>
class HostArray {
 public:
  explicit HostArray(Shape shape, T value = T{})
      : shape_(shape), data_(static_cast<std::size_t>(shape.numel()) + guard_count, guard()) {
    fill(value);
  }
  HostArray(HostArray&&) noexcept = default;
  HostArray(const HostArray&) = delete;
  HostArray& operator=(const HostArray&) = delete;
  HostArray& operator=(HostArray&&) = delete;
  ~HostArray() {
    if (data_.empty()) return;  // moved from
    for (std::size_t i = data_.size() - guard_count; i < data_.size(); ++i) {
      EXPECT_EQ(data_[i], guard()) << "an op wrote behind the end of " << shape_.str();
    }
  }

  Tensor tensor() { return Tensor(data_.data(), dtype_of<T>(), shape_); }
  operator Tensor() { return tensor(); }  // NOLINT: op calls read as in the contract

  const Shape& shape() const { return shape_; }
  std::int64_t size() const { return shape_.numel(); }
  T& operator[](std::int64_t i) { return data_[static_cast<std::size_t>(i)]; }
  const T& operator[](std::int64_t i) const { return data_[static_cast<std::size_t>(i)]; }
  std::span<const T> values() const { return {data_.data(), static_cast<std::size_t>(size())}; }
  void fill(T value) { std::fill_n(data_.begin(), size(), value); }
  HostArray clone() const {
    HostArray other(shape_);
    other.data_ = data_;
    return other;
  }
  /// The contents, for references in double precision.
  std::vector<double> doubles() const { return {data_.begin(), data_.begin() + size()}; }

 private:
  static constexpr std::size_t guard_count = 16;
  static constexpr T guard() { return static_cast<T>(77); }

  Shape shape_;
  std::vector<T> data_;
};

using HostF32 = HostArray<float>;
using HostF64 = HostArray<double>;
using HostI32 = HostArray<std::int32_t>;
using HostU8 = HostArray<std::uint8_t>;

/// Normal numbers times `scale`; `name` selects the stream, so every operand of a test has its own.
inline HostF32 random_normal(Shape shape, std::string_view name, float scale = 1) {
  HostF32 x(shape);
  const Philox rng(1234, name);
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = scale * rng.normal(static_cast<std::uint64_t>(i));
  return x;
}

/// Integers in [low, high] stored as T: sums of small ones are exact in any order.
template <class T = float>
HostArray<T> random_integers(Shape shape, std::string_view name, std::int64_t low, std::int64_t high) {
  HostArray<T> x(shape);
  const Philox rng(1234, name);
  const auto count = static_cast<std::uint64_t>(high - low + 1);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<T>(low + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(i), count)));
  }
  return x;
}

/// An array whose every element is NaN (or the lowest integer): an op that overwrites must leave none.
template <class T = float>
HostArray<T> poisoned(Shape shape) {
  if constexpr (std::is_floating_point_v<T>) return HostArray<T>(shape, std::numeric_limits<T>::quiet_NaN());
  return HostArray<T>(shape, std::numeric_limits<T>::lowest());
}

/// |actual - expected| <= bound, elementwise; reports the worst element (largest error / bound). NaN fails.
template <class T>
void expect_close(const HostArray<T>& actual, const std::vector<double>& expected, const std::vector<double>& bound,
                  const std::string& what) {
  ASSERT_EQ(static_cast<std::size_t>(actual.size()), expected.size()) << what;
  ASSERT_EQ(expected.size(), bound.size()) << what;
  std::size_t worst = 0;
  double worst_ratio = -1;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(static_cast<double>(actual.values()[i]) - expected[i]);
    double ratio = error == 0 ? 0 : error / bound[i];
    if (std::isnan(ratio)) ratio = std::numeric_limits<double>::infinity();
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  if (worst_ratio <= 1) return;
  ADD_FAILURE() << what << " " << actual.shape().str() << ": element " << worst << " is "
                << static_cast<double>(actual.values()[worst]) << ", expected " << expected[worst] << " +- "
                << bound[worst] << " (error / bound = " << worst_ratio << ")";
}

/// The same with one bound for all elements.
template <class T>
void expect_close(const HostArray<T>& actual, const std::vector<double>& expected, double bound,
                  const std::string& what) {
  expect_close(actual, expected, std::vector<double>(expected.size(), bound), what);
}

/// Bit-equal contents (0 and -0 count as equal, NaN as different).
template <class T>
void expect_equal(const HostArray<T>& actual, const HostArray<T>& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::int64_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i], expected[i]) << what << " " << actual.shape().str() << ", element " << i;
  }
}

/// Largest absolute value, for bounds.
inline double max_abs(const std::vector<double>& x) {
  double largest = 0;
  for (double value : x) largest = std::max(largest, std::abs(value));
  return largest;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Central differences of `loss` at x with step h. Error: h^2 / 6 * |third derivative| + 1e-16 * |loss| / h,
/// so about 1e-10 for h = 1e-5 and quantities of order one. The scalar loss of an op's output y is usually
/// dot(dy, y(x)).
inline std::vector<double> numeric_gradient(const std::function<double(const std::vector<double>&)>& loss,
                                            std::vector<double> x, double h = 1e-5) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double center = x[i];
    x[i] = center + h;
    const double above = loss(x);
    x[i] = center - h;
    const double below = loss(x);
    x[i] = center;
    gradient[i] = (above - below) / (2 * h);
  }
  return gradient;
}

/// a + b elementwise: the expectation of an op that accumulates b onto a.
inline std::vector<double> added(std::vector<double> a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

/// The fixture: ops are called through the Backend contract.
class OpTest : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> backend = make_cpu_backend(2);
};

}  // namespace vqlm::testing
