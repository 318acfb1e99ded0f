#include "core/tensor.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/buffer.h"
#include "core/cpu/cpu_backend.h"

namespace vqlm {
namespace {

TEST(Shape, CountsElementsAndPrints) {
  EXPECT_EQ(Shape({2, 3, 4}).numel(), 24);
  EXPECT_EQ(Shape({5, 0}).numel(), 0);
  EXPECT_EQ(Shape().numel(), 1);
  EXPECT_EQ(Shape({2, 3}).str(), "(2, 3)");
  EXPECT_EQ(Shape().str(), "()");
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_FALSE(Shape({2, 3}) == Shape({2, 3, 1}));
}

TEST(Tensor, AbsentTensorIsFalseAndEmpty) {
  const Tensor absent;
  EXPECT_FALSE(absent);
  EXPECT_EQ(absent.numel(), 0);
  EXPECT_EQ(absent.bytes(), 0u);
  EXPECT_EQ(absent.f32(), nullptr);
}

TEST(Tensor, RowsAndRangesPointIntoTheSameMemory) {
  std::vector<float> data(24);
  const Tensor x(data.data(), DType::f32, {4, 3, 2});
  const Tensor rows = x.rows(1, 2);
  EXPECT_EQ(rows.shape(), Shape({2, 3, 2}));
  EXPECT_EQ(rows.f32(), data.data() + 6);
  const Tensor range = x.range(5, 7);
  EXPECT_EQ(range.shape(), Shape({7}));
  EXPECT_EQ(range.f32(), data.data() + 5);
  EXPECT_EQ(x.view({12, 2}).f32(), data.data());
  EXPECT_EQ(x.rows(4, 0).numel(), 0);
  EXPECT_EQ(x.bytes(), 96u);
}

TEST(TensorDeathTest, RefusesRangesBeyondTheEndAndWrongTypes) {
  std::vector<float> data(24);
  const Tensor x(data.data(), DType::f32, {4, 6});
  EXPECT_DEATH(x.rows(3, 2), "internal error");
  EXPECT_DEATH(x.range(20, 5), "internal error");
  EXPECT_DEATH(x.view({5, 5}), "internal error");
  EXPECT_DEATH(x.i32(), "internal error");
}

TEST(Buffer, AccountsForMemoryByUse) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  const auto bytes_of = [](const auto& counts, MemoryUse use) { return counts[static_cast<std::size_t>(use)]; };
  {
    const Buffer parameters = backend->allocate(1000, MemoryUse::parameters);
    {
      Buffer first = backend->allocate(300, MemoryUse::activations);
      const Buffer moved = std::move(first);
      EXPECT_EQ(first.data(), nullptr);  // NOLINT: a moved-from buffer is empty
      EXPECT_EQ(moved.bytes(), 300u);
      EXPECT_EQ(bytes_of(backend->memory().in_use, MemoryUse::activations), 300u);
    }
    const Buffer second = backend->allocate(200, MemoryUse::activations);
    const Backend::MemoryAccount account = backend->memory();
    EXPECT_EQ(bytes_of(account.in_use, MemoryUse::parameters), 1000u);
    EXPECT_EQ(bytes_of(account.in_use, MemoryUse::activations), 200u);
    EXPECT_EQ(bytes_of(account.peak, MemoryUse::activations), 300u);
    EXPECT_EQ(account.peak_total, 1300u);
  }
  EXPECT_EQ(bytes_of(backend->memory().in_use, MemoryUse::parameters), 0u);
  EXPECT_EQ(backend->memory().peak_total, 1300u);
}

TEST(Buffer, BlocksAreAlignedAndEmptyOnesArePresent) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{65}, std::size_t{5} << 20}) {
    const Buffer block = backend->allocate(bytes, MemoryUse::workspace);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data()) % 64, 0u) << bytes;
    EXPECT_TRUE(block.view({0})) << "a zero-size tensor must not look absent";
  }
}

TEST(Buffer, RefusedAllocationNamesBytesAskedForAndInUse) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  const Buffer held = backend->allocate(4096, MemoryUse::gradients);
  for (const std::size_t bytes : {std::size_t{1} << 60, ~std::size_t{0}}) {
    try {
      backend->allocate(bytes, MemoryUse::optimizer);
      FAIL() << "allocated " << bytes;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(std::to_string(bytes)), std::string::npos) << message;
      EXPECT_NE(message.find("optimizer with 4096 bytes in use"), std::string::npos) << message;
    }
  }
  EXPECT_EQ(backend->memory().peak_total, 4096u);
}

TEST(CpuBackend, DescribesItselfAndRefusesZeroThreads) {
  const std::string description = make_cpu_backend(2)->description();
  EXPECT_EQ(description.rfind("cpu (", 0), 0u) << description;
  EXPECT_NE(description.find(", 2 threads)"), std::string::npos) << description;
  EXPECT_THROW(make_cpu_backend(0), UsageError);
}

TEST(CpuBackend, CopiesAndFills) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(2);
  const std::int64_t n = 600'001;  // more than two blocks of a parallel copy, and an odd tail
  const Buffer a = backend->allocate(static_cast<std::size_t>(n) * 4, MemoryUse::workspace);
  const Buffer b = backend->allocate(static_cast<std::size_t>(n) * 4, MemoryUse::workspace);
  std::vector<float> host(static_cast<std::size_t>(n)), back(host.size());
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>(i);
  backend->copy_from_host(a.view({n}), host.data());
  backend->copy(b.view({n}), a.view({n}));
  backend->copy_to_host(back.data(), b.view({n}));
  EXPECT_EQ(host, back);
  backend->fill(b.view({n}), 2.5f);
  EXPECT_EQ(b.view({n}).f32()[n - 1], 2.5f);
  backend->fill(b.view({n}, DType::i32), -3.75f);
  EXPECT_EQ(b.view({n}, DType::i32).i32()[n / 2], -3) << "rounds toward zero";
  backend->fill(b.view({7}, DType::f64), 0);
  EXPECT_EQ(b.view({7}, DType::f64).as<double>()[6], 0.0);
}

}  // namespace
}  // namespace vqlm
