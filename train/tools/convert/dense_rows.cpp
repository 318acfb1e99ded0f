#include "train/tools/convert/dense_rows.h"

// Products of one thread give the same bits whatever the number of cores.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "core/box.h"

namespace vqlm {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<RowMajor>;
using ConstRows = Eigen::Map<const RowMajor>;

// Clusters are found among this many leading components of the rows: at d = 4,096 the products of k-means are a sixteenth.
constexpr std::int64_t cluster_dims = 256;

}  // namespace

WeightedVectors read_rows(const ModelSource& source, const std::vector<std::int64_t>& counts) {
  const std::string name = source.model().tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  WeightedVectors rows;
  rows.rows = source.model().vocab_size;
  rows.dims = source.model().d_model;
  rows.values.reserve(static_cast<std::size_t>(rows.rows * rows.dims));
  for (const Box& box : row_boxes({rows.rows, rows.dims})) {
    const std::vector<float> part = source.read(name, box.offset, box.extent);
    rows.values.insert(rows.values.end(), part.begin(), part.end());
  }
  // Square root: frequent tokens lead, but 10^5 times the count must not mean 10^5 times the say.
  for (const std::int64_t count : counts) rows.weight.push_back(std::sqrt(static_cast<float>(count) + 1));
  if (counts.empty()) rows.weight.assign(static_cast<std::size_t>(rows.rows), 1.0f);
  return rows;
}

WeightedVectors leading_components(const WeightedVectors& x) {
  if (x.dims <= cluster_dims) return x;
  const ConstRows rows(x.values.data(), x.rows, x.dims);
  const Eigen::RowVectorXf mean = rows.cast<double>().colwise().mean().cast<float>();
  Eigen::MatrixXf covariance = Eigen::MatrixXf::Zero(x.dims, x.dims);
  for (std::int64_t begin = 0; begin < x.rows; begin += 1024) {
    const RowMajor part = rows.middleRows(begin, std::min<std::int64_t>(1024, x.rows - begin)).rowwise() - mean;
    covariance.selfadjointView<Eigen::Lower>().rankUpdate(part.transpose());
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXf> solver(covariance);  // eigenvalues rise
  const Eigen::MatrixXf axes = solver.eigenvectors().rightCols(cluster_dims);
  WeightedVectors out{.rows = x.rows, .dims = cluster_dims, .values = {}, .weight = x.weight};
  out.values.resize(static_cast<std::size_t>(x.rows * cluster_dims));
  Rows(out.values.data(), x.rows, cluster_dims).noalias() = rows * axes;
  return out;
}

double weighted_squares(const WeightedVectors& x) {
  const ConstRows rows(x.values.data(), x.rows, x.dims);
  double sum = 0;
  for (std::int64_t v = 0; v < x.rows; ++v) {
    sum += static_cast<double>(x.weight[static_cast<std::size_t>(v)]) * static_cast<double>(rows.row(v).squaredNorm());
  }
  return sum;
}

double weighted_variance(const WeightedVectors& x) {
  const ConstRows rows(x.values.data(), x.rows, x.dims);
  Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(x.dims);
  double weight = 0;
  for (std::int64_t v = 0; v < x.rows; ++v) {
    const auto w = static_cast<double>(x.weight[static_cast<std::size_t>(v)]);
    mean += w * rows.row(v).cast<double>();
    weight += w;
  }
  return weighted_squares(x) - mean.squaredNorm() / weight;
}

}  // namespace vqlm
