#include "core/log.h"
#include "tests/cuda/op_testing_cuda.h"
#include "tests/cuda/unaligned_products.h"

namespace vqlm::testing {
namespace {

struct Product {
  std::int64_t m, n, k;
  Transpose ta, tb;
};

std::string name(const ::testing::TestParamInfo<Product>& info) {
  const Product& p = info.param;
  return std::to_string(p.m) + "x" + std::to_string(p.n) + "x" + std::to_string(p.k) +
         (p.ta == Transpose::yes ? "_T" : "_N") + (p.tb == Transpose::yes ? "T" : "N");
}

std::vector<Product> products() {
  std::vector<Product> all;
  const std::array<std::int64_t, 3> sizes[] = {{1, 1, 1},     {1, 1000, 65}, {65, 1, 7}, {7, 65, 1000}, {64, 72, 8},
                                               {130, 67, 65}, {5, 3, 0},     {0, 4, 3},  {4, 0, 3}};
  for (const auto& [m, n, k] : sizes) {
    for (const Transpose ta : {Transpose::no, Transpose::yes}) {
      for (const Transpose tb : {Transpose::no, Transpose::yes}) all.push_back({m, n, k, ta, tb});
    }
  }
  return all;
}

/// What a product may be of.
struct Kind {
  DType operands, result;
  Accumulate accumulate;

  std::string str() const {
    return std::string(name_of(operands)) + " to " + std::string(name_of(result)) +
           (accumulate == Accumulate::yes ? ", accumulated" : "");
  }
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
    all.push_back({DType::bf16, DType::bf16, accumulate});
    all.push_back({DType::bf16, DType::f32, accumulate});
    all.push_back({DType::f32, DType::f32, accumulate});
  }
  return all;
}

HostF32 magnitudes(const HostF32& x) {
  HostF32 magnitude = x.clone();
  for (std::int64_t i = 0; i < x.size(); ++i) magnitude[i] = std::abs(x[i]);
  return magnitude;
}

class CudaMatmulTest : public CudaOpTest, public ::testing::WithParamInterface<Product> {
 protected:
  static Shape shape_of(Transpose transpose, std::int64_t rows, std::int64_t columns) {
    return transpose == Transpose::yes ? Shape{columns, rows} : Shape{rows, columns};
  }
  const Product p = GetParam();
  // Values that bf16 holds serve f32 operands as well.
  const HostF32 a = random_bf16(shape_of(p.ta, p.m, p.k), "a");
  const HostF32 b = random_bf16(shape_of(p.tb, p.k, p.n), "b");
  const HostF32 earlier = random_bf16({p.m, p.n}, "c");

  /// The CPU's product, added to `of_c` or overwriting.
  HostF32 reference(const HostF32& of_a, const HostF32& of_b, const HostF32& of_c, Accumulate accumulate) {
    HostF32 c = accumulate == Accumulate::yes ? of_c.clone() : poisoned(of_c.shape());
    HostF32 left = of_a.clone(), right = of_b.clone();
    oracle->run(Matmul{.c = c, .a = left, .b = right, .ta = p.ta, .tb = p.tb, .accumulate = accumulate});
    return c;
  }

  void compare_with_cpu();
  HostF32 computed(const Kind& kind, std::int64_t offset) const {
    DeviceArray c = kind.accumulate == Accumulate::yes ? DeviceArray(*device, earlier, kind.result, offset)
                                                       : output({p.m, p.n}, kind.result, offset);
    const DeviceArray left(*device, a, kind.operands, offset), right(*device, b, kind.operands, offset);
    device->run(Matmul{.c = c, .a = left, .b = right, .ta = p.ta, .tb = p.tb, .accumulate = kind.accumulate});
    return c.download();
  }
};

TEST_P(CudaMatmulTest, EqualsTheCpu) {
  const UnalignedProducts allowed(Unaligned::allowed, "every size and address is a case");
  compare_with_cpu();
}

TEST_P(CudaMatmulTest, OnAlignedCopiesWhereThereIsNoAlgorithm) {
  const UnalignedProducts unsupported(Unaligned::unsupported, "what a library without slow kernels says");
  log::set_level(log::level::err);  // each such product is named once
  compare_with_cpu();
  log::set_level(log::level::info);
}

void CudaMatmulTest::compare_with_cpu() {
  for (const Kind& kind : kinds()) {
    const HostF32 expected = reference(a, b, earlier, kind.accumulate);
    const HostF32 magnitude = reference(magnitudes(a), magnitudes(b), magnitudes(earlier), kind.accumulate);
    std::vector<double> bound;
    for (std::int64_t i = 0; i < expected.size(); ++i) {
      // k products and k sums on each side, in any order; one rounding of a bf16 result.
      const double of_sums = 2 * static_cast<double>(p.k + 1) * u32 * static_cast<double>(magnitude[i]);
      const double of_result = kind.result == DType::bf16 ? u16 * std::abs(static_cast<double>(expected[i])) : 0;
      bound.push_back(of_sums + of_result);
    }
    // Aligned to 256 bytes, to one element, and to 8 elements: three plans for one shape.
    for (const std::int64_t offset : {0, 1, 8})
      expect_close(computed(kind, offset), expected.doubles(), bound,
                   kind.str() + ", offset " + std::to_string(offset));
    expect_equal(computed(kind, 0), computed(kind, 0), kind.str() + " twice");
  }
}

INSTANTIATE_TEST_SUITE_P(Products, CudaMatmulTest, ::testing::ValuesIn(products()), name);

class CudaMatmulChain : public CudaOpTest {};

// Plans share one workspace; in stream order each product is done before the next one begins.
TEST_F(CudaMatmulChain, ProductsFollowEachOther) {
  const HostF32 a = random_integers({32, 32}, "a", -1, 1), b = random_integers({32, 32}, "b", -1, 1);
  HostF32 left = a.clone(), right = b.clone(), product({32, 32}), expected({32, 32});
  oracle->run(Matmul{.c = product, .a = left, .b = right, .accumulate = Accumulate::no});
  oracle->run(Matmul{.c = expected, .a = product, .b = right, .tb = Transpose::yes, .accumulate = Accumulate::no});

  const DeviceArray device_a = bf16(a), device_b = bf16(b);
  DeviceArray first = output({32, 32}), second = output({32, 32}, DType::f32);
  device->run(Matmul{.c = first, .a = device_a, .b = device_b, .accumulate = Accumulate::no});
  device->run(Matmul{.c = second, .a = first, .b = device_b, .tb = Transpose::yes, .accumulate = Accumulate::no});
  expect_equal(second.download(), expected, "a b b^T");  // |sums| <= 32, then <= 1024: exact in bf16 and fp32
}

}  // namespace
}  // namespace vqlm::testing
