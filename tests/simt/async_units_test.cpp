// Hopper's asynchronous units on the executor, each layout against plain loops, in every order. Elements are small integers.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/simt/async_kernels.h"
#include "tests/simt/executor.h"

namespace vqlm::cuda {
namespace {

using Bf16 = __nv_bfloat16;

/// Device memory is the host's here.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(std::vector<T> values) : values_(std::move(values)) {
    EXPECT_EQ(cudaMalloc(&data_, values_.size() * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values_.data(), values_.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~OnDevice() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> download() {
    EXPECT_EQ(cudaMemcpy(values_.data(), data_, values_.size() * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values_;
  }

 private:
  std::vector<T> values_;
  void* data_ = nullptr;
};

class AsyncUnits : public testing::TestWithParam<simt::Order> {
 protected:
  AsyncUnits() {
    simt::set_order(GetParam(), 5);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  ~AsyncUnits() override {
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    simt::set_order(simt::Order::forward);
  }
  void wait() { ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }

  cudaStream_t stream_ = nullptr;
};

std::string order_name(const testing::TestParamInfo<simt::Order>& of) {
  const char* names[] = {"forward", "reverse", "random"};
  return names[static_cast<int>(of.param)];
}

INSTANTIATE_TEST_SUITE_P(, AsyncUnits, testing::Values(simt::Order::forward, simt::Order::reverse, simt::Order::random),
                         order_name);

float element(int row, int k, int seed) {
  return static_cast<float>((row * 31 + k * 17 + seed) % 7 - 3);
}

/// Where PTX puts 16-byte chunk `chunk` of row `row` of eight under a swizzle: the chunk's number xored with the row's.
unsigned chunk_of(unsigned row, unsigned chunk, Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::bytes_128:
      return chunk ^ row;
    case Swizzle::bytes_64:
      return chunk ^ row / 2;  // two rows share 128 bytes
    case Swizzle::bytes_32:
      return chunk ^ row / 4;
    default:
      return chunk;
  }
}
unsigned width_of(Swizzle swizzle) {
  return swizzle == Swizzle::bytes_128  ? 128
         : swizzle == Swizzle::bytes_64 ? 64
         : swizzle == Swizzle::bytes_32 ? 32
                                        : 16;
}

struct Image {
  std::vector<Bf16> bytes;
  OperandImage operand;
  void put(unsigned at, float x) {
    if (bytes.size() <= at / 2) bytes.resize((at / 2 / 8 + 1) * 8, Bf16(-100.0f));
    bytes[at / 2] = Bf16(x);
  }
};

/// Rows of k: eight rows an atom, atoms `stride` apart; k begins `skip` elements into the rows of the swizzle's width.
Image k_major(int rows, Swizzle swizzle, unsigned stride, unsigned skip, int seed) {
  Image image;
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < 16; ++k) {
      const auto r = static_cast<unsigned>(row), along = static_cast<unsigned>(k) + skip;
      if (swizzle == Swizzle::none) {  // two atoms of 8 x 8, 128 bytes each, side by side
        image.put(r / 8 * stride + along / 8 * 128 + r % 8 * 16 + along % 8 * 2, element(row, k, seed));
      } else {
        const unsigned chunk = chunk_of(r % 8, along / 8, swizzle);
        image.put(r / 8 * stride + r % 8 * width_of(swizzle) + chunk * 16 + along % 8 * 2, element(row, k, seed));
      }
    }
  }
  image.operand = {nullptr, static_cast<int>(image.bytes.size()), skip * 2, 128, stride, swizzle};
  return image;
}

/// Rows of n, as wide as the swizzle; `leading` from one such width to the next, `stride` from eight k to the next.
Image n_major(int rows, Swizzle swizzle, unsigned leading, unsigned stride, int seed) {
  Image image;
  const unsigned width = width_of(swizzle);
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < 16; ++k) {
      const auto n = static_cast<unsigned>(row), of = static_cast<unsigned>(k);
      const unsigned panel = n / (width / 2), chunk = chunk_of(of % 8, n % (width / 2) / 8, swizzle);
      const unsigned atom =
          swizzle == Swizzle::none ? panel * stride + of / 8 * leading : panel * leading + of / 8 * stride;
      image.put(atom + of % 8 * width + chunk * 16 + n % 8 * 2, element(row, k, seed));
    }
  }
  image.operand = {nullptr, static_cast<int>(image.bytes.size()), 0, leading, stride, swizzle};
  return image;
}

void expect_product(cudaStream_t stream, Image a, Image b, Major b_major, int n) {
  const OnDevice<Bf16> a_bytes(a.bytes), b_bytes(b.bytes);
  OnDevice<float> c(std::vector<float>(static_cast<std::size_t>(64 * n), -1.0f));
  a.operand.bytes = a_bytes.data();
  b.operand.bytes = b_bytes.data();
  multiply_images(stream, c.data(), a.operand, b.operand, b_major, n);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  const std::vector<float> result = c.download();
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < n; ++column) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += element(row, k, 1) * element(column, k, 2);
      ASSERT_EQ(result[static_cast<std::size_t>(row * n + column)], 2 * sum) << row << " " << column << " of " << n;
    }
  }
}

TEST_P(AsyncUnits, ProductsOfRowsOfK) {
  for (const int n : {64, 128}) {
    expect_product(stream_, k_major(64, Swizzle::bytes_128, 1024, 0, 1), k_major(n, Swizzle::bytes_128, 1024, 48, 2),
                   Major::k, n);
    expect_product(stream_, k_major(64, Swizzle::bytes_64, 512, 16, 1), k_major(n, Swizzle::bytes_32, 512, 0, 2),
                   Major::k, n);
    expect_product(stream_, k_major(64, Swizzle::none, 256, 0, 1), k_major(n, Swizzle::bytes_128, 2048, 16, 2),
                   Major::k, n);
  }
}

TEST_P(AsyncUnits, ProductsOfRowsOfColumns) {
  for (const int n : {64, 128}) {
    const auto count = static_cast<unsigned>(n);
    expect_product(stream_, k_major(64, Swizzle::bytes_128, 1024, 32, 1), n_major(n, Swizzle::bytes_128, 4096, 1024, 2),
                   Major::mn, n);
    expect_product(stream_, k_major(64, Swizzle::bytes_128, 1024, 0, 1), n_major(n, Swizzle::bytes_64, 1024, 512, 2),
                   Major::mn, n);
    expect_product(stream_, k_major(64, Swizzle::none, 256, 0, 1), n_major(n, Swizzle::bytes_32, 512, count * 32, 2),
                   Major::mn, n);
    expect_product(stream_, k_major(64, Swizzle::bytes_32, 256, 0, 1), n_major(n, Swizzle::none, count * 16, 128, 2),
                   Major::mn, n);
  }
}

TEST_P(AsyncUnits, ProductsOfRegisters) {
  Image rows;
  for (int row = 0; row < 64; ++row) {
    for (int k = 0; k < 16; ++k) rows.put(static_cast<unsigned>(row * 16 + k) * 2, element(row, k, 1));
  }
  rows.operand = {nullptr, 0, 0, 0, 0, Swizzle::none};
  expect_product(stream_, rows, k_major(64, Swizzle::bytes_128, 1024, 0, 2), Major::k, 64);
  expect_product(stream_, rows, n_major(128, Swizzle::bytes_128, 2048, 1024, 2), Major::mn, 128);
}

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

struct MapShape {
  int rank;
  cuuint64_t extents[4];
  cuuint64_t strides[3];  // bytes
  cuuint32_t box[4];
  CUtensorMapSwizzle swizzle;
};

CUresult encode(CUtensorMap* map, void* data, const MapShape& shape) {
  void* function = nullptr;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  EXPECT_EQ(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, nullptr), cudaSuccess);
#pragma GCC diagnostic pop
  const cuuint32_t ones[] = {1, 1, 1, 1};
  return reinterpret_cast<Encode>(function)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(shape.rank),
                                            data, shape.extents, shape.strides, shape.box, ones,
                                            CU_TENSOR_MAP_INTERLEAVE_NONE, shape.swizzle,
                                            CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

/// Loads a box, looks at its bytes in shared memory, stores it into zeros and looks at them.
void expect_box(cudaStream_t stream, const MapShape& shape, BoxPosition from, BoxPosition to) {
  std::size_t count = shape.strides[shape.rank - 2] / 2 * shape.extents[shape.rank - 1];
  int box = 1;
  for (int d = 0; d < shape.rank; ++d) box *= static_cast<int>(shape.box[d]);
  std::vector<Bf16> values(count), zeros(count, Bf16(0.0f));
  for (std::size_t i = 0; i < count; ++i) values[i] = Bf16(static_cast<float>(i % 251 + 1));
  OnDevice<Bf16> source(values), target(zeros), raw(std::vector<Bf16>(static_cast<std::size_t>(box), Bf16(-1.0f)));
  CUtensorMap in, out;
  ASSERT_EQ(encode(&in, source.data(), shape), CUDA_SUCCESS);
  ASSERT_EQ(encode(&out, target.data(), shape), CUDA_SUCCESS);
  copy_box(stream, reinterpret_cast<unsigned char*>(raw.data()), in, &out, shape.rank, from, to, box * 2);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  const std::vector<Bf16> in_shared = raw.download(), stored = target.download();
  std::vector<Bf16> expected(count, Bf16(0.0f));
  const Swizzle modes[] = {Swizzle::none, Swizzle::bytes_32, Swizzle::bytes_64, Swizzle::bytes_128};
  for (int i = 0; i < box; ++i) {
    bool read = true, written = true;
    std::size_t source_at = 0, target_at = 0;
    for (int d = 0, rest = i; d < shape.rank; rest /= static_cast<int>(shape.box[d]), ++d) {
      const int at = rest % static_cast<int>(shape.box[d]), s = from.at[d] + at, t = to.at[d] + at;
      const std::size_t stride = d == 0 ? 1 : shape.strides[d - 1] / 2;
      read = read && s >= 0 && s < static_cast<int>(shape.extents[d]);
      written = written && t >= 0 && t < static_cast<int>(shape.extents[d]);
      source_at += read ? static_cast<std::size_t>(s) * stride : 0;
      target_at += written ? static_cast<std::size_t>(t) * stride : 0;
    }
    const float x = read ? static_cast<float>(values[source_at]) : 0.0f;
    const auto row = static_cast<unsigned>(i) / shape.box[0], column = static_cast<unsigned>(i) % shape.box[0];
    const unsigned chunk = chunk_of(row % 8, column / 8, modes[shape.swizzle]);
    ASSERT_EQ(static_cast<float>(in_shared[row * shape.box[0] + chunk * 8 + column % 8]), x) << i;
    if (written) expected[target_at] = Bf16(x);
  }
  for (std::size_t i = 0; i < count; ++i) {
    ASSERT_EQ(static_cast<float>(stored[i]), static_cast<float>(expected[i])) << i;
  }
}

TEST_P(AsyncUnits, BulkCopiesOfBoxes) {
  expect_box(stream_, {2, {72, 20}, {160}, {64, 16}, CU_TENSOR_MAP_SWIZZLE_128B}, {{0, 2}}, {{8, 9}});
  expect_box(stream_, {2, {72, 20}, {160}, {32, 9}, CU_TENSOR_MAP_SWIZZLE_64B}, {{50, -3}}, {{0, 0}});
  expect_box(stream_, {3, {24, 7, 5}, {64, 448}, {16, 4, 3}, CU_TENSOR_MAP_SWIZZLE_32B}, {{-8, 5, 1}}, {{8, 0, 4}});
  expect_box(stream_, {3, {40, 6, 3}, {96, 576}, {24, 8, 2}, CU_TENSOR_MAP_SWIZZLE_NONE}, {{30, -1, 2}}, {{-4, 1, 0}});
  expect_box(stream_, {4, {16, 3, 4, 2}, {32, 96, 384}, {8, 2, 3, 2}, CU_TENSOR_MAP_SWIZZLE_NONE}, {{8, 2, 3, 1}},
             {{0, 1, 2, 0}});
}

TEST_P(AsyncUnits, BulkCopiesOfBytes) {
  std::vector<unsigned char> bytes(528);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 7);
  OnDevice<unsigned char> in(bytes), out(std::vector<unsigned char>(bytes.size()));
  copy_bytes(stream_, out.data(), in.data(), static_cast<int>(bytes.size()));
  wait();
  EXPECT_EQ(out.download(), bytes);
}

TEST_P(AsyncUnits, MapsThatCudaRefuses) {
  OnDevice<Bf16> data(std::vector<Bf16>(4096));
  CUtensorMap map;
  const MapShape good{2, {64, 16}, {128}, {64, 8}, CU_TENSOR_MAP_SWIZZLE_128B};
  EXPECT_EQ(encode(&map, data.data(), good), CUDA_SUCCESS);
  MapShape bad = good;
  bad.box[0] = 72;  // wider than the swizzle
  EXPECT_EQ(encode(&map, data.data(), bad), CUDA_ERROR_INVALID_VALUE);
  bad = good;
  bad.box[1] = 257;
  EXPECT_EQ(encode(&map, data.data(), bad), CUDA_ERROR_INVALID_VALUE);
  bad = good;
  bad.strides[0] = 136;
  EXPECT_EQ(encode(&map, data.data(), bad), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encode(&map, data.data() + 1, good), CUDA_ERROR_INVALID_VALUE);
}

TEST_P(AsyncUnits, WarpsTakeTurnsAtNamedBarriers) {
  constexpr int rounds = 5;
  OnDevice<int> out(std::vector<int>(rounds * 32, -1));
  take_turns(stream_, out.data(), rounds);
  wait();
  const std::vector<int> sums = out.download();
  for (int i = 0; i < rounds * 32; ++i) EXPECT_EQ(sums[static_cast<std::size_t>(i)], i / 32 * 32 + 31 * 16);
}

}  // namespace
}  // namespace vqlm::cuda
