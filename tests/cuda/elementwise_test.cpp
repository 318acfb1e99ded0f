#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaElementwiseTest : public CudaOpTest {
 protected:
  /// Below, at and above a pack, a block and several blocks.
  const std::vector<std::int64_t> counts{0, 1, 7, 8, 65, 1000, 40'001};
};

TEST_F(CudaElementwiseTest, FillSetsEveryElementOfEachType) {
  for (const std::int64_t n : counts) {
    for (const std::int64_t offset : {0, 1, 3}) {
      DeviceArray f32 = output({n}, DType::f32, offset), rounded = output({n}, DType::bf16, offset);
      DeviceArray i32 = output({n}, DType::i32, offset);
      device->fill(f32, 0.3f);
      device->fill(rounded, 0.3f);
      device->fill(i32, -2.7f);
      expect_equal(f32.download(), HostF32({n}, 0.3f), "f32");
      expect_equal(rounded.download(), HostF32({n}, round_to_bf16(0.3f)), "bf16");
      expect_equal(i32.download<std::int32_t>(), HostI32({n}, -2), "i32");  // toward zero
    }
  }
}

TEST_F(CudaElementwiseTest, RoundToActivationIsToNearestEven) {
  for (const std::int64_t n : counts) {
    // Both aligned, both off by the same, and by different numbers of elements.
    for (const auto& [src_offset, dst_offset] : {std::pair{0, 0}, {3, 3}, {1, 0}, {0, 5}}) {
      HostF32 src = random_normal({n}, "src"), expected({n});
      const std::vector<float> chosen{1.00390625f, 1.01171875f, -1.00390625f, 3.4e38f, 0.0f, 1e-40f, -1e-39f};
      for (std::size_t i = 0; i < chosen.size() && i < static_cast<std::size_t>(n); ++i) {
        src[static_cast<std::int64_t>(i)] = chosen[i];  // ties down and up, overflow, subnormals
      }
      for (std::int64_t i = 0; i < n; ++i) expected[i] = round_to_bf16(src[i]);
      DeviceArray dst = output({n}, DType::bf16, dst_offset);
      device->round_to_activation(dst, upload(src, src_offset));
      expect_equal(dst.download(), expected, "dst");
    }
  }
}

TEST_F(CudaElementwiseTest, RoundToActivationKeepsNotANumber) {
  HostF32 src({9}, 1.0f);
  src[4] = std::numeric_limits<float>::quiet_NaN();
  DeviceArray dst = output({9});
  device->round_to_activation(dst, upload(src));
  const HostF32 rounded = dst.download();
  for (std::int64_t i = 0; i < 9; ++i) EXPECT_EQ(std::isnan(rounded[i]), i == 4) << i;
}

TEST_F(CudaElementwiseTest, ColumnSumsAccumulateExactlyOnIntegers) {
  for (const auto& [rows, columns] :
       {std::pair{1, 1}, {7, 65}, {65, 7}, {1000, 65}, {1500, 3}, {3, 1500}, {0, 5}, {333, 264}, {33, 8}}) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 x = random_integers({rows, columns}, "x", -100, 100);  // exact in bf16, sums below 2^24
      HostF32 out = random_integers({columns}, "out", -100, 100);
      DeviceArray sums = upload(out);
      device->run(AddColumnSums{.out = sums, .x = bf16(x, offset)});
      oracle->run(AddColumnSums{.out = out, .x = x});
      expect_equal(sums.download(), out, "out");
    }
  }
}

TEST_F(CudaElementwiseTest, ColumnSumsLeaveThePaddingOut) {
  for (const auto& [columns, width] : {std::pair{61, 64}, {65, 128}, {64, 72}, {3, 5}, {0, 64}}) {
    HostF32 x = random_integers({333, width}, "x", -100, 100);
    HostF32 out = random_integers({columns}, "out", -100, 100);
    DeviceArray sums = upload(out);
    device->run(AddColumnSums{.out = sums, .x = bf16(x)});
    std::vector<double> expected = out.doubles();
    for (std::int64_t i = 0; i < x.size(); ++i) {
      if (i % width < columns) expected[static_cast<std::size_t>(i % width)] += x[i];
    }
    expect_close(sums.download(), expected, 0.0, "out");
    oracle->run(AddColumnSums{.out = out, .x = x});
    expect_close(out, expected, 0.0, "the host's");
  }
}

TEST_F(CudaElementwiseTest, ColumnSumsAreMadeInFloatAndTheSameInEveryRun) {
  const std::int64_t rows = 999, columns = 136;
  HostF32 x = random_bf16({rows, columns}, "x"), out({columns});
  std::vector<double> bound(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < x.size(); ++i) {
    // Fewer than 300 additions on any term's way on either side.
    bound[static_cast<std::size_t>(i % columns)] += 600 * u32 * std::abs(static_cast<double>(x[i]));
  }
  DeviceArray sums = upload(out), again = upload(out), operand = bf16(x);
  device->run(AddColumnSums{.out = sums, .x = operand});
  device->run(AddColumnSums{.out = again, .x = operand});
  oracle->run(AddColumnSums{.out = out, .x = x});
  expect_close(sums.download(), out.doubles(), bound, "out");
  expect_equal(again.download(), sums.download(), "second run");
}

TEST_F(CudaElementwiseTest, ColumnSumsAndBiasesTakeAPartOfTheColumns) {
  // Places at multiples of a pack and off them.
  for (const auto& [first, columns, width] :
       {std::tuple{8, 16, 40}, {8, 13, 40}, {3, 8, 40}, {16, 24, 40}, {1, 2, 5}}) {
    HostF32 x = random_integers({333, width}, "x", -100, 100), out = random_integers({columns}, "out", -100, 100);
    HostF32 bias = random_integers({columns}, "bias", -100, 100);
    DeviceArray sums = upload(out), shifted = bf16(x);
    device->run(AddColumnSums{.out = sums, .x = shifted, .first = first});
    device->run(AddBias{.x = shifted, .bias = upload(bias), .first = first});
    oracle->run(AddColumnSums{.out = out, .x = x, .first = first});
    oracle->run(AddBias{.x = x, .bias = bias, .first = first});
    expect_equal(sums.download(), out, "out");
    expect_equal(shifted.download(), x, "x");  // whole numbers up to 200: exact
  }
}

TEST_F(CudaElementwiseTest, AddAndScaleRoundOnceAlsoInPlace) {
  for (const std::int64_t n : counts) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 a = random_bf16({n}, "a"), b = random_bf16({n}, "b"), expected({n});
      for (std::int64_t i = 0; i < n; ++i) expected[i] = round_to_bf16(a[i] + b[i]);
      DeviceArray in_place = bf16(a, offset), out = output({n});
      const DeviceArray addend = bf16(b, offset);
      device->run(Add{.out = out, .a = in_place, .b = addend});
      expect_equal(out.download(), expected, "out");
      device->run(Add{.out = in_place, .a = in_place, .b = addend});
      expect_equal(in_place.download(), expected, "in place");
      device->run(Scale{.x = in_place, .factor = 3.3f});
      for (std::int64_t i = 0; i < n; ++i) expected[i] = round_to_bf16(3.3f * expected[i]);
      expect_equal(in_place.download(), expected, "scaled");
    }
  }
}

TEST_F(CudaElementwiseTest, SwapAxesExchangesTheFirstTwo) {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{3, 7, 65}, Shape{65, 2, 1}, Shape{2, 9, 4000}, Shape{5, 300, 8},
                             Shape{4, 0, 3}, Shape{3, 11, 104}}) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 src = random_bf16(shape, "src"), expected({shape[1], shape[0], shape[2]});
      DeviceArray dst = output(expected.shape());
      device->run(SwapAxes{.dst = dst, .src = bf16(src, offset)});
      oracle->run(SwapAxes{.dst = expected, .src = src});
      expect_equal(dst.download(), expected, "dst");
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
