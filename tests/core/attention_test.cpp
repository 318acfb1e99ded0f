// Attention against a double-precision reference, which is itself checked by finite differences.
#include <gtest/gtest.h>

#include "tests/core/attention_documents.h"

namespace vqlm::testing {
namespace {

/// Outputs in double, and for each a bound of what float may lose.
struct Reference {
  std::vector<double> out, out_bound, lse, lse_bound;
  std::vector<double> dqkv, dqkv_bound;
};

/// What one query's softmax sees.
struct Row {
  std::vector<double> p;
  double lse = 0;
  double relative_error = 0;  // of each computed p
};

class Model {
 public:
  Model(const AttentionShape& shape, std::vector<double> qkv, const HostI32* documents = nullptr)
      : shape_(shape), qkv_(std::move(qkv)), documents_(documents) {}

  Reference forward() const;
  /// Adds the gradient for dout to a forward result.
  void backward(Reference& reference, const std::vector<double>& dout) const;
  /// sum(dout * out), the scalar whose gradient backward gives.
  double loss(const std::vector<double>& dout) const { return dot(dout, forward().out); }

 private:
  std::size_t query_at(std::int64_t b, std::int64_t t, int h) const {
    return static_cast<std::size_t>((b * shape_.seq_len + t) * shape_.row() + std::int64_t{h} * shape_.head_dim);
  }
  std::size_t key_at(std::int64_t b, std::int64_t t, int h) const {
    return query_at(b, t, shape_.heads + h / (shape_.heads / shape_.kv_heads));
  }
  std::size_t value_at(std::int64_t b, std::int64_t t, int h) const {
    return query_at(b, t, shape_.heads + shape_.kv_heads + h / (shape_.heads / shape_.kv_heads));
  }
  std::size_t out_at(std::int64_t b, std::int64_t t, int h) const {
    return static_cast<std::size_t>(((b * shape_.seq_len + t) * shape_.heads + h) * shape_.head_dim);
  }
  double scale() const {
    return shape_.scale > 0 ? static_cast<double>(shape_.scale) : 1 / std::sqrt(static_cast<double>(shape_.head_dim));
  }
  Row softmax_row(std::int64_t b, std::int64_t t, int h) const;

  AttentionShape shape_;
  std::vector<double> qkv_;
  const HostI32* documents_;
};

Row Model::softmax_row(std::int64_t b, std::int64_t t, int h) const {
  Row row;
  double largest = -1e300, magnitude = 0;
  const std::int64_t first = first_seen(shape_, documents_, b, t);
  row.p.resize(static_cast<std::size_t>(first), -1e300);  // out of sight: p is 0
  for (std::int64_t j = first; j <= t; ++j) {
    double score = 0, terms = 0;
    for (int i = 0; i < shape_.head_dim; ++i) {
      const double term = qkv_[query_at(b, t, h) + static_cast<std::size_t>(i)] *
                          qkv_[key_at(b, j, h) + static_cast<std::size_t>(i)] * scale();
      score += term;
      terms += std::abs(term);
    }
    row.p.push_back(score);
    largest = std::max(largest, score);
    magnitude = std::max(magnitude, terms);
  }
  double sum = 0;
  for (double& p : row.p) sum += p = std::exp(p - largest);
  for (double& p : row.p) p /= sum;
  row.lse = largest + std::log(sum);
  // A score is off by at most (head_dim + 4) u32 of its terms; exp turns that into a relative error, once in p and
  // once in the normaliser, which adds the rounding of its own sum (2 u32 for exp and 1 for each of t + 1 terms).
  row.relative_error = u32 * (2 * (shape_.head_dim + 4) * magnitude + static_cast<double>(t) + 8);
  return row;
}

Reference Model::forward() const {
  Reference r;
  const auto size = static_cast<std::size_t>(shape_.batch * shape_.seq_len * shape_.heads * shape_.head_dim);
  r.out.resize(size);
  r.out_bound.resize(size);
  for (std::int64_t b = 0; b < shape_.batch; ++b) {
    for (int h = 0; h < shape_.heads; ++h) {
      for (std::int64_t t = 0; t < shape_.seq_len; ++t) {
        const Row row = softmax_row(b, t, h);
        r.lse.push_back(row.lse);
        r.lse_bound.push_back(row.relative_error + 2 * u32 * std::abs(row.lse));
        for (std::size_t i = 0; i < static_cast<std::size_t>(shape_.head_dim); ++i) {
          const std::size_t at = out_at(b, t, h) + i;
          for (std::int64_t j = 0; j <= t; ++j) {
            const double term = row.p[static_cast<std::size_t>(j)] * qkv_[value_at(b, j, h) + i];
            r.out[at] += term;
            r.out_bound[at] += std::abs(term) * (row.relative_error + u32 * static_cast<double>(t + 3));
          }
        }
      }
    }
  }
  return r;
}

void Model::backward(Reference& r, const std::vector<double>& dout) const {
  r.dqkv.resize(qkv_.size());
  r.dqkv_bound.resize(qkv_.size());
  const auto add = [&](std::size_t at, double term, double error) {
    r.dqkv[at] += term;
    r.dqkv_bound[at] += error;
  };
  const auto dim = static_cast<std::size_t>(shape_.head_dim);
  // Sums over positions, heads of a group and head_dim that a gradient passes through.
  const double length = static_cast<double>(shape_.seq_len * (shape_.heads / shape_.kv_heads) + 2 * shape_.head_dim);
  for (std::int64_t b = 0; b < shape_.batch; ++b) {
    for (int h = 0; h < shape_.heads; ++h) {
      for (std::int64_t t = 0; t < shape_.seq_len; ++t) {
        const Row row = softmax_row(b, t, h);
        const double relative = row.relative_error + u32 * (length + 8);
        const std::size_t query = query_at(b, t, h), out = out_at(b, t, h);
        std::vector<double> dp(row.p.size()), dp_terms(row.p.size());
        double delta = 0, delta_terms = 0;
        for (std::size_t j = 0; j < row.p.size(); ++j) {
          const std::size_t value = value_at(b, static_cast<std::int64_t>(j), h);
          for (std::size_t i = 0; i < dim; ++i) {
            dp[j] += dout[out + i] * qkv_[value + i];
            dp_terms[j] += std::abs(dout[out + i] * qkv_[value + i]);
            add(value + i, row.p[j] * dout[out + i], relative * std::abs(row.p[j] * dout[out + i]));
          }
          delta += row.p[j] * dp[j];
          delta_terms += row.p[j] * dp_terms[j];
        }
        for (std::size_t j = 0; j < row.p.size(); ++j) {
          const std::size_t key = key_at(b, static_cast<std::int64_t>(j), h);
          const double ds = scale() * row.p[j] * (dp[j] - delta);
          // p, dp and delta (through out) each carry an error of about `relative` of their terms.
          const double error = 2 * relative * scale() * row.p[j] * (dp_terms[j] + delta_terms);
          for (std::size_t i = 0; i < dim; ++i) {
            add(query + i, ds * qkv_[key + i], error * std::abs(qkv_[key + i]));
            add(key + i, ds * qkv_[query + i], error * std::abs(qkv_[query + i]));
          }
        }
      }
    }
  }
}

class AttentionTest : public OpTest, public ::testing::WithParamInterface<AttentionCase> {
 protected:
  AttentionShape shape = GetParam().shape;
  HostI32 cut = random_documents(shape);
  const HostI32* const seen = GetParam().documents ? &cut : nullptr;
  Tensor documents = GetParam().documents ? cut.tensor() : Tensor{};
  std::int64_t width = std::int64_t{shape.heads} * shape.head_dim;
  HostF32 qkv = random_normal({shape.batch, shape.seq_len, shape.row()}, "qkv");
  HostF32 dout = random_normal({shape.batch, shape.seq_len, width}, "dout");
  HostF32 out = poisoned({shape.batch, shape.seq_len, width});
  HostF32 lse = poisoned({shape.batch, shape.heads, shape.seq_len});
  HostF32 dqkv = poisoned({shape.batch, shape.seq_len, shape.row()});
};

TEST_P(AttentionTest, EqualsReference) {
  const Model model(shape, qkv.doubles(), seen);
  Reference expected = model.forward();
  model.backward(expected, dout.doubles());

  backend->run(AttentionForward{.out = out, .lse = lse, .qkv = qkv, .shape = shape, .documents = documents});
  expect_close(out, expected.out, expected.out_bound, "out");
  expect_close(lse, expected.lse, expected.lse_bound, "lse");
  backend->run(AttentionBackward{
      .dqkv = dqkv, .dout = dout, .out = out, .lse = lse, .qkv = qkv, .shape = shape, .documents = documents});
  expect_close(dqkv, expected.dqkv, expected.dqkv_bound, "dqkv");
}

TEST_P(AttentionTest, IsTheSameForAnyThreadCount) {
  backend->run(AttentionForward{.out = out, .lse = lse, .qkv = qkv, .shape = shape, .documents = documents});
  backend->run(AttentionBackward{
      .dqkv = dqkv, .dout = dout, .out = out, .lse = lse, .qkv = qkv, .shape = shape, .documents = documents});
  HostF32 out_1 = poisoned(out.shape()), lse_1 = poisoned(lse.shape()), dqkv_1 = poisoned(dqkv.shape());
  const auto one_thread = make_cpu_backend(1);
  one_thread->run(AttentionForward{.out = out_1, .lse = lse_1, .qkv = qkv, .shape = shape, .documents = documents});
  one_thread->run(AttentionBackward{
      .dqkv = dqkv_1, .dout = dout, .out = out_1, .lse = lse_1, .qkv = qkv, .shape = shape, .documents = documents});
  expect_equal(out_1, out, "out");
  expect_equal(lse_1, lse, "lse");
  expect_equal(dqkv_1, dqkv, "dqkv");
}

// {batch, seq_len, heads, kv_heads, head_dim}; query blocks are 64 rows and key tiles 256 columns.
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         ::testing::Values(AttentionShape{1, 1, 1, 1, 16}, AttentionShape{2, 7, 2, 2, 16},
                                           AttentionShape{1, 65, 4, 2, 32}, AttentionShape{3, 130, 4, 1, 16},
                                           AttentionShape{1, 130, 2, 1, 128}, AttentionShape{1, 257, 3, 3, 64},
                                           AttentionShape{1, 513, 2, 1, 64}, AttentionShape{1, 640, 1, 1, 2}),
                         attention_case_name);

// {..., scale, window}: windows within a tile, over several, as long as the sequence; documents alone and within windows.
INSTANTIATE_TEST_SUITE_P(Masks, AttentionTest,
                         ::testing::Values(AttentionShape{2, 130, 4, 2, 16, 0.4f}, AttentionShape{1, 9, 2, 1, 4, 0, 1},
                                           AttentionShape{2, 130, 4, 2, 16, 0, 7},
                                           AttentionShape{1, 640, 2, 1, 8, 0, 70},
                                           AttentionShape{1, 640, 1, 1, 8, 0.2f, 300},
                                           AttentionShape{1, 70, 1, 1, 4, 0, 70},
                                           AttentionCase(AttentionShape{3, 130, 4, 1, 16}, true),
                                           AttentionCase(AttentionShape{2, 640, 2, 1, 8}, true),
                                           AttentionCase(AttentionShape{1, 640, 2, 2, 8, 0, 60}, true)),
                         attention_case_name);

TEST(AttentionReference, BackwardEqualsFiniteDifferences) {
  const AttentionShape shape{2, 5, 4, 2, 4};
  const std::vector<double> qkv = random_normal({shape.batch, shape.seq_len, shape.row()}, "qkv").doubles();
  const std::vector<double> dout = random_normal({shape.batch, shape.seq_len, 16}, "dout").doubles();
  const Model model(shape, qkv);
  Reference reference = model.forward();
  model.backward(reference, dout);
  const auto numeric = numeric_gradient([&](const std::vector<double>& x) { return Model(shape, x).loss(dout); }, qkv);
  for (std::size_t i = 0; i < numeric.size(); ++i) ASSERT_NEAR(reference.dqkv[i], numeric[i], 1e-7) << i;
}

/// Scores far apart: the running maximum must grow across key tiles and the rest vanish without overflow.
TEST_F(OpTest, AttentionFollowsAGrowingMaximum) {
  const AttentionShape shape{1, 600, 1, 1, 16};
  HostF32 qkv({1, 600, 48});
  for (std::int64_t t = 0; t < 600; ++t) {
    qkv[t * 48] = 40.0f;                           // q
    qkv[t * 48 + 16] = static_cast<float>(t);      // k: the latest position wins by 10 a step
    qkv[t * 48 + 32] = static_cast<float>(t % 7);  // v
  }
  HostF32 out = poisoned({1, 600, 16}), lse = poisoned({1, 1, 600});
  backend->run(AttentionForward{.out = out, .lse = lse, .qkv = qkv, .shape = shape});
  for (std::int64_t t = 0; t < 600; ++t) {
    ASSERT_NEAR(out[t * 16], static_cast<float>(t % 7), 6 * 4.6e-5) << t;  // exp(-10) on the neighbour
    ASSERT_NEAR(lse[t], 10.0f * static_cast<float>(t), 5e-5 + 10.0 * static_cast<double>(t) * u32) << t;
  }
}

}  // namespace
}  // namespace vqlm::testing
