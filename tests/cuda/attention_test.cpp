// Attention on the device against the CPU back end, on inputs that bf16 holds exactly. Backward gets the device's own
// out and lse on both sides, so that what is compared is one op at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/core/attention_documents.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

/// What two computations of the same attention may differ by: one in bf16 on the device, one in f32 on the CPU.
///
/// A score is a float sum of head_dim terms, off by (head_dim + 4) u32 of the terms' sizes; the exponential turns
/// that into a relative error of p, once more in the normaliser, whose sum of t + 1 terms adds its own: `relative`,
/// on either side. The device rounds p and dscore to bf16 for the products (u16 of each term) and the results when it
/// stores them.
class Bounds {
 public:
  Bounds(const AttentionShape& shape, const HostF32& qkv, const HostI32* documents = nullptr)
      : shape_(shape), qkv_(qkv), documents_(documents) {}

  std::vector<double> out, lse, dqkv;

  void forward(const HostF32& expected_out, const HostF32& expected_lse);
  void backward(const HostF32& expected_dqkv, const HostF32& dout, const HostF32& device_out,
                const HostF32& device_lse);

 private:
  struct Query {
    std::vector<double> p;  // of keys 0 .. t
    double relative = 0;
  };

  std::int64_t dim() const { return shape_.head_dim; }
  double scale() const { return static_cast<double>(shape_.score_scale()); }
  std::int64_t at(std::int64_t b, std::int64_t t, int head_in_row) const {
    return (b * shape_.seq_len + t) * shape_.row() + head_in_row * dim();
  }
  int key_head(int h) const { return shape_.heads + h / (shape_.heads / shape_.kv_heads); }
  int value_head(int h) const { return key_head(h) + shape_.kv_heads; }
  Query query(std::int64_t b, std::int64_t t, int h) const;
  void add_backward(std::int64_t b, std::int64_t t, int h, const HostF32& dout, const HostF32& device_out,
                    double lse_size);

  AttentionShape shape_;
  const HostF32& qkv_;
  const HostI32* documents_;
};

Bounds::Query Bounds::query(std::int64_t b, std::int64_t t, int h) const {
  Query result;
  double largest = -1e300, size = 0, sum = 0;
  const std::int64_t first = first_seen(shape_, documents_, b, t);
  result.p.resize(static_cast<std::size_t>(first), -1e300);  // out of sight: p is 0
  for (std::int64_t j = first; j <= t; ++j) {
    double score = 0, terms = 0;
    for (std::int64_t i = 0; i < dim(); ++i) {
      const double term = scale() * qkv_[at(b, t, h) + i] * qkv_[at(b, j, key_head(h)) + i];
      score += term;
      terms += std::abs(term);
    }
    result.p.push_back(score);
    largest = std::max(largest, score);
    size = std::max(size, terms);
  }
  for (double& p : result.p) sum += p = std::exp(p - largest);
  for (double& p : result.p) p /= sum;
  // 16: the exponentials (2 units in the last place, twice) and the roundings of their arguments.
  result.relative = u32 * (2 * static_cast<double>(dim() + 4) * size + static_cast<double>(t) + 16);
  return result;
}

void Bounds::forward(const HostF32& expected_out, const HostF32& expected_lse) {
  for (std::int64_t i = 0; i < expected_out.size(); ++i) out.push_back(u16 * std::abs(expected_out[i]));
  lse.resize(static_cast<std::size_t>(expected_lse.size()));
  for (std::int64_t row = 0; row < expected_lse.size(); ++row) {
    const std::int64_t t = row % shape_.seq_len, b = row / shape_.seq_len / shape_.heads;
    const int h = static_cast<int>(row / shape_.seq_len % shape_.heads);
    const Query of = query(b, t, h);
    lse[static_cast<std::size_t>(row)] = 2 * (of.relative + 4 * u32 * (std::abs(expected_lse[row]) + 1));
    const std::int64_t out_at = ((b * shape_.seq_len + t) * shape_.heads + h) * dim();
    for (std::int64_t j = 0; j <= t; ++j) {
      const double of_term = of.p[static_cast<std::size_t>(j)] * (1 + u16) *
                             (u16 + 2 * of.relative + u32 * static_cast<double>(2 * t + 8));
      for (std::int64_t i = 0; i < dim(); ++i) {
        out[static_cast<std::size_t>(out_at + i)] += of_term * std::abs(qkv_[at(b, j, value_head(h)) + i]);
      }
    }
  }
}

void Bounds::backward(const HostF32& expected_dqkv, const HostF32& dout, const HostF32& device_out,
                      const HostF32& device_lse) {
  for (std::int64_t i = 0; i < expected_dqkv.size(); ++i) {
    dqkv.push_back(u16 * std::abs(expected_dqkv[i]));
  }
  for (std::int64_t row = 0; row < device_lse.size(); ++row) {
    add_backward(row / shape_.seq_len / shape_.heads, row % shape_.seq_len,
                 static_cast<int>(row / shape_.seq_len % shape_.heads), dout, device_out, std::abs(device_lse[row]));
  }
}

/// Query t's part of the bounds of dq, dk and dv.
void Bounds::add_backward(std::int64_t b, std::int64_t t, int h, const HostF32& dout, const HostF32& device_out,
                          double lse_size) {
  const Query of = query(b, t, h);
  const std::int64_t out_at = ((b * shape_.seq_len + t) * shape_.heads + h) * dim();
  const double relative = of.relative + 8 * u32 * lse_size;
  // A float sum over positions and the heads of a group, on either side, and the last rounding of a sum with rounded
  // terms.
  const double sums = u32 * 2 * static_cast<double>(shape_.seq_len * (shape_.heads / shape_.kv_heads) + 8);
  const auto add = [&](std::int64_t index, double error) { dqkv[static_cast<std::size_t>(index)] += error; };
  double delta = 0, delta_terms = 0;
  for (std::int64_t i = 0; i < dim(); ++i) {
    const double term = static_cast<double>(dout[out_at + i]) * device_out[out_at + i];
    delta += term;
    delta_terms += std::abs(term);
  }
  for (std::int64_t j = 0; j <= t; ++j) {
    const double p = of.p[static_cast<std::size_t>(j)];
    const std::int64_t key = at(b, j, key_head(h)), value = at(b, j, value_head(h)), query_at = at(b, t, h);
    double dp = 0, dp_terms = 0;
    for (std::int64_t i = 0; i < dim(); ++i) {
      const double term = static_cast<double>(dout[out_at + i]) * qkv_[value + i];
      dp += term;
      dp_terms += std::abs(term);
      add(value + i, p * (1 + u16) * (u16 + 2 * relative + sums) * std::abs(dout[out_at + i]));
    }
    const double dscore = scale() * p * std::abs(dp - delta);
    const double dscore_error = scale() * p * 2 * u32 * static_cast<double>(dim() + 8) * (dp_terms + delta_terms);
    const double error = (1 + u16) * (dscore * (u16 + 2 * relative + sums) + dscore_error);
    for (std::int64_t i = 0; i < dim(); ++i) {
      add(query_at + i, error * std::abs(qkv_[key + i]));
      add(key + i, error * std::abs(qkv_[query_at + i]));
    }
  }
}

/// One call of both ops on the device.
struct DeviceResult {
  HostF32 out, lse, dqkv;
};

class CudaAttentionTest : public CudaOpTest {
 protected:
  static Shape out_shape(const AttentionShape& s) { return {s.batch, s.seq_len, std::int64_t{s.heads} * s.head_dim}; }

  DeviceResult run(const AttentionShape& shape, const HostF32& qkv, const HostF32& dout,
                   const HostI32* documents = nullptr) {
    const DeviceArray cut = documents == nullptr ? output({0}, DType::i32) : upload(*documents);
    const Tensor mask = documents == nullptr ? Tensor{} : cut.tensor();
    const DeviceArray in = bf16(qkv), dout_in = bf16(dout), out = output(out_shape(shape)),
                      lse = output({shape.batch, shape.heads, shape.seq_len}, DType::f32), dqkv = output(qkv.shape());
    device->run(AttentionForward{.out = out, .lse = lse, .qkv = in, .shape = shape, .documents = mask});
    device->run(AttentionBackward{
        .dqkv = dqkv, .dout = dout_in, .out = out, .lse = lse, .qkv = in, .shape = shape, .documents = mask});
    return {out.download(), lse.download(), dqkv.download()};
  }

  void expect_oracle(const AttentionShape& shape, HostF32& qkv, HostF32& dout, HostI32* documents = nullptr) {
    DeviceResult result = run(shape, qkv, dout, documents);
    const Tensor mask = documents == nullptr ? Tensor{} : documents->tensor();
    HostF32 out = poisoned(result.out.shape()), lse = poisoned(result.lse.shape()), dqkv = poisoned(qkv.shape());
    oracle->run(AttentionForward{.out = out, .lse = lse, .qkv = qkv, .shape = shape, .documents = mask});
    Bounds bounds(shape, qkv, documents);
    bounds.forward(out, lse);
    expect_close(result.out, out.doubles(), bounds.out, "out");
    expect_close(result.lse, lse.doubles(), bounds.lse, "lse");
    oracle->run(AttentionBackward{.dqkv = dqkv,
                                  .dout = dout,
                                  .out = result.out,
                                  .lse = result.lse,
                                  .qkv = qkv,
                                  .shape = shape,
                                  .documents = mask});
    bounds.backward(dqkv, dout, result.out, result.lse);
    expect_close(result.dqkv, dqkv.doubles(), bounds.dqkv, "dqkv");
  }
};

class CudaAttentionShapes : public CudaAttentionTest, public ::testing::WithParamInterface<AttentionCase> {};

TEST_P(CudaAttentionShapes, EqualsTheCpu) {
  const AttentionShape& shape = GetParam().shape;
  HostF32 qkv = random_bf16({shape.batch, shape.seq_len, shape.row()}, "qkv");
  HostF32 dout = random_bf16(out_shape(shape), "dout");
  HostI32 documents = random_documents(shape);
  expect_oracle(shape, qkv, dout, GetParam().documents ? &documents : nullptr);
}

// {batch, seq_len, heads, kv_heads, head_dim}. Tiles are of 128 queries and 32 or 64 keys, 128 on Hopper; of 64 or 128 keys
// in backward. Sequences of 520 go round every stage of a pipeline twice.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaAttentionShapes,
                         ::testing::Values(AttentionShape{1, 1, 1, 1, 32}, AttentionShape{2, 1, 4, 2, 128},
                                           AttentionShape{2, 17, 3, 1, 64}, AttentionShape{1, 64, 4, 2, 32},
                                           AttentionShape{1, 64, 1, 1, 128}, AttentionShape{1, 100, 4, 4, 64},
                                           AttentionShape{2, 129, 3, 1, 32}, AttentionShape{1, 129, 1, 1, 64},
                                           AttentionShape{1, 129, 3, 1, 128}, AttentionShape{2, 200, 4, 2, 64},
                                           AttentionShape{1, 200, 4, 2, 128}, AttentionShape{1, 300, 1, 1, 32},
                                           AttentionShape{1, 520, 2, 1, 64}, AttentionShape{1, 520, 1, 1, 128}),
                         attention_case_name);

// {..., scale, window}: windows within a tile and over several, documents alone and within windows; warps that skip a tile
// which their neighbours need.
INSTANTIATE_TEST_SUITE_P(
    Masks, CudaAttentionShapes,
    ::testing::Values(AttentionShape{1, 100, 2, 1, 32, 0.3f}, AttentionShape{1, 40, 1, 1, 32, 0, 1},
                      AttentionShape{1, 300, 2, 1, 64, 0, 5}, AttentionShape{1, 300, 3, 1, 128, 0, 100},
                      AttentionShape{2, 200, 2, 2, 32, 0, 70}, AttentionCase(AttentionShape{2, 300, 2, 1, 64}, true),
                      AttentionCase(AttentionShape{1, 300, 2, 2, 128}, true),
                      AttentionCase(AttentionShape{1, 520, 1, 1, 128, 0, 260}, true),
                      AttentionCase(AttentionShape{1, 260, 2, 1, 32, 0, 90}, true)),
    attention_case_name);

/// Scores with a standard deviation of 36 reach beyond +-100, where e^score overflows float and e^-score is 0.
TEST_F(CudaAttentionTest, LargeScoresNeitherOverflowNorVanish) {
  const AttentionShape shape{1, 150, 2, 1, 64};
  HostF32 qkv = random_bf16({1, shape.seq_len, shape.row()}, "qkv");
  for (std::int64_t i = 0; i < qkv.size(); ++i) {
    if (i % shape.row() < 3 * shape.head_dim) qkv[i] = round_to_bf16(6 * qkv[i]);  // q and k
  }
  HostF32 dout = random_bf16(out_shape(shape), "dout");
  expect_oracle(shape, qkv, dout);
}

/// The latest position wins by 80 in every row, so each tile's maximum takes over and what was summed before
/// vanishes.
TEST_F(CudaAttentionTest, TheMaximumGrowsFromTileToTile) {
  const AttentionShape shape{1, 200, 1, 1, 64};
  HostF32 qkv({1, shape.seq_len, shape.row()}), dout = random_bf16(out_shape(shape), "dout");
  for (std::int64_t t = 0; t < shape.seq_len; ++t) {
    qkv[t * 192] = 640.0f;                               // q: 640 / sqrt(64) = 80
    qkv[t * 192 + 64] = static_cast<float>(t);           // k
    qkv[t * 192 + 128] = static_cast<float>(t % 7 + 1);  // v
  }
  const DeviceResult result = run(shape, qkv, dout);
  for (std::int64_t t = 0; t < shape.seq_len; ++t) {
    ASSERT_EQ(result.out[t * 64], static_cast<float>(t % 7 + 1)) << t;  // e^-80 is nothing beside 1
    ASSERT_NEAR(result.lse[t], 80.0 * static_cast<double>(t), u32 * 4 * 80.0 * static_cast<double>(t)) << t;
  }
}

/// Equal rows: every p before normalising is exactly 1, so out is v without any error, and with dp = delta every
/// gradient of a score is 0 up to the float sums of dp and delta.
TEST_F(CudaAttentionTest, EqualRowsAverageExactly) {
  const AttentionShape shape{1, 140, 2, 1, 32};
  HostF32 qkv({1, shape.seq_len, shape.row()});
  const HostF32 row = random_bf16({shape.row()}, "row"), dout = random_bf16(out_shape(shape), "dout");
  for (std::int64_t i = 0; i < qkv.size(); ++i) qkv[i] = row[i % shape.row()];
  const DeviceResult result = run(shape, qkv, dout);
  for (std::int64_t t = 0; t < shape.seq_len; ++t) {
    for (std::int64_t i = 0; i < 64; ++i) ASSERT_EQ(result.out[t * 64 + i], row[3 * 32 + i % 32]) << t;
    // dp and delta are sums of 32 terms below 3 * 3 in size, and there are 140 keys, or queries of 2 heads.
    for (std::int64_t i = 0; i < 3 * 32; ++i) {
      ASSERT_NEAR(result.dqkv[t * shape.row() + i], 0.0, 2 * 140 * 3 * u32 * 2 * 36 * 32 * 9) << t;
    }
  }
}

TEST_F(CudaAttentionTest, IsTheSameInEveryRun) {
  const AttentionShape shape{2, 130, 4, 2, 64};
  const HostF32 qkv = random_bf16({2, 130, shape.row()}, "qkv"), dout = random_bf16(out_shape(shape), "dout");
  const DeviceResult first = run(shape, qkv, dout), second = run(shape, qkv, dout);
  expect_equal(second.out, first.out, "out");
  expect_equal(second.lse, first.lse, "lse");
  expect_equal(second.dqkv, first.dqkv, "dqkv");
}

TEST_F(CudaAttentionTest, NoPositionsAreNoWork) {
  for (const AttentionShape& shape : {AttentionShape{0, 5, 2, 1, 64}, AttentionShape{2, 0, 2, 1, 64}}) {
    const DeviceResult result =
        run(shape, HostF32({shape.batch, shape.seq_len, shape.row()}), HostF32(out_shape(shape)));
    EXPECT_EQ(result.out.size(), 0);
  }
}

TEST_F(CudaAttentionTest, OtherHeadSizesAreRefused) {
  const AttentionShape shape{1, 2, 1, 1, 48};
  const HostF32 qkv({1, 2, shape.row()}), dout(out_shape(shape));
  try {
    run(shape, qkv, dout);
    FAIL() << "head_dim 48 was taken";
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "attention: head_dim = 48, but the CUDA back end has 32, 64 and 128: choose model.head_dim = one of these");
  }
}

}  // namespace
}  // namespace vqlm::testing
