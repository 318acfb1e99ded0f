#include "train/codes/token_vectors.h"

// Products of one thread give the same bits whatever the number of cores.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <Eigen/SparseCore>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rng.h"

namespace vqlm {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// y (R, w) = A x, x (C, w).
RowMajor times(const SparseRows& a, const RowMajor& x) {
  RowMajor y = RowMajor::Zero(a.rows(), x.cols());
  for (std::int64_t row = 0; row < a.rows(); ++row) {
    auto out = y.row(row);
    for (std::int64_t i = a.row_begin[static_cast<std::size_t>(row)];
         i < a.row_begin[static_cast<std::size_t>(row) + 1]; ++i) {
      out += a.value[static_cast<std::size_t>(i)] * x.row(a.column[static_cast<std::size_t>(i)]);
    }
  }
  return y;
}

/// y (C, w) = A^T x, x (R, w).
RowMajor transposed_times(const SparseRows& a, const RowMajor& x) {
  RowMajor y = RowMajor::Zero(a.columns, x.cols());
  for (std::int64_t row = 0; row < a.rows(); ++row) {
    const auto in = x.row(row);
    for (std::int64_t i = a.row_begin[static_cast<std::size_t>(row)];
         i < a.row_begin[static_cast<std::size_t>(row) + 1]; ++i) {
      y.row(a.column[static_cast<std::size_t>(i)]) += a.value[static_cast<std::size_t>(i)] * in;
    }
  }
  return y;
}

/// Calls f(row, column, value) for every stored value.
template <class F>
void for_each_value(SparseRows& a, F f) {
  for (std::size_t row = 0; row + 1 < a.row_begin.size(); ++row) {
    for (auto i = static_cast<std::size_t>(a.row_begin[row]); i < static_cast<std::size_t>(a.row_begin[row + 1]); ++i) {
      f(row, static_cast<std::size_t>(a.column[i]), a.value[i]);
    }
  }
}

/// An orthonormal basis of the columns of y, in place of y.
void orthonormalise(RowMajor& y) {
  const Eigen::HouseholderQR<Eigen::MatrixXf> qr(y);
  y = qr.householderQ() * Eigen::MatrixXf::Identity(y.rows(), y.cols());
}

}  // namespace

void to_positive_pmi(SparseRows& counts, int parts) {
  VQLM_ASSERT(counts.columns % parts == 0);
  const std::int64_t part_columns = counts.columns / parts;
  std::vector<double> context_weight(static_cast<std::size_t>(counts.columns), 0);
  for (std::size_t i = 0; i < counts.value.size(); ++i) {
    context_weight[static_cast<std::size_t>(counts.column[i])] += static_cast<double>(counts.value[i]);
  }
  for (int part = 0; part < parts; ++part) {
    const auto begin = context_weight.begin() + part * part_columns;
    std::transform(begin, begin + part_columns, begin, [](double n) { return std::pow(n, 0.75); });
    const double sum = std::accumulate(begin, begin + part_columns, 0.0);
    if (sum > 0) std::transform(begin, begin + part_columns, begin, [&](double q) { return q / sum; });
  }
  for (std::int64_t row = 0; row < counts.rows(); ++row) {
    const auto begin = static_cast<std::size_t>(counts.row_begin[static_cast<std::size_t>(row)]);
    const auto end = static_cast<std::size_t>(counts.row_begin[static_cast<std::size_t>(row) + 1]);
    std::vector<double> row_sum(static_cast<std::size_t>(parts), 0);
    const auto part_of = [&](std::size_t i) { return static_cast<std::size_t>(counts.column[i] / part_columns); };
    for (std::size_t i = begin; i < end; ++i) row_sum[part_of(i)] += static_cast<double>(counts.value[i]);
    for (std::size_t i = begin; i < end; ++i) {
      const double expected = row_sum[part_of(i)] * context_weight[static_cast<std::size_t>(counts.column[i])];
      const double pmi = std::log(static_cast<double>(counts.value[i]) / expected);
      counts.value[i] = static_cast<float>(std::max(0.0, pmi));
    }
  }
}

std::vector<float> truncated_svd(const SparseRows& a, int dims, std::uint64_t seed, double power) {
  constexpr int oversampling = 20;
  constexpr int power_iterations = 4;
  const std::int64_t width = std::min<std::int64_t>({dims + oversampling, a.rows(), a.columns});
  const Philox rng(seed, "token_vectors.range_finder");
  RowMajor probe(a.columns, width);
  for (std::int64_t i = 0; i < probe.size(); ++i) probe.data()[i] = rng.normal(static_cast<std::uint64_t>(i));
  RowMajor basis = times(a, probe);  // (V, width)
  for (int i = 0; i < power_iterations; ++i) {
    orthonormalise(basis);
    basis = times(a, transposed_times(a, basis));
  }
  orthonormalise(basis);
  // A ~ Q (A^T Q)^T; the SVD of the small factor from the eigenvectors of its Gram matrix, in double: singular values
  // below 1e-8 of the largest would be lost, which are no signal here.
  const Eigen::MatrixXd small = transposed_times(a, basis).cast<double>();  // (2C, width)
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(small.transpose() * small);
  std::vector<float> x(static_cast<std::size_t>(a.rows() * dims), 0.0f);
  Eigen::Map<RowMajor> out(x.data(), a.rows(), dims);
  const std::int64_t kept = std::min<std::int64_t>(dims, width);
  const Eigen::MatrixXf vectors = eigen.eigenvectors().rowwise().reverse().leftCols(kept).cast<float>();
  out.leftCols(kept) = basis * vectors;
  for (std::int64_t j = 0; j < kept; ++j) {
    const double squared = std::max(0.0, eigen.eigenvalues()(width - 1 - j));  // singular value squared
    out.col(j) *= static_cast<float>(std::pow(squared, power / 2));
  }
  return x;
}

std::vector<float> chi_square_vectors(SparseRows counts, int dims, std::uint64_t seed) {
  std::vector<double> row_sum(static_cast<std::size_t>(counts.rows()), 0);
  std::vector<double> column_sum(static_cast<std::size_t>(counts.columns), 0);
  for_each_value(counts, [&](std::size_t row, std::size_t column, float& n) {
    row_sum[row] += static_cast<double>(n);
    column_sum[column] += static_cast<double>(n);
  });
  for_each_value(counts, [&](std::size_t row, std::size_t column, float& n) {
    n = static_cast<float>(static_cast<double>(n) / std::sqrt(row_sum[row] * column_sum[column]));
  });
  std::vector<float> x = truncated_svd(counts, dims, seed, 1);
  // Rows per occurrence: without it their lengths follow the square root of the counts.
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double n = row_sum[i / static_cast<std::size_t>(dims)];
    if (n > 0) x[i] /= static_cast<float>(std::sqrt(n));
  }
  return x;
}

}  // namespace vqlm
