#include "train/tools/convert/hidden_states.h"

// Products of one thread give the same bits whatever the number of cores.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <algorithm>

namespace vqlm {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double least_variance = 1e-4;  // of the mean one
constexpr std::int64_t rows_at_a_time = 4096;

}  // namespace

HiddenMoments moments_of(const HiddenStates& hidden, std::int64_t rows) {
  const std::int64_t d = hidden.dims;
  const Eigen::Map<const RowMajor> h(hidden.values.data(), rows, d);
  HiddenMoments moments{.mean = std::vector<double>(static_cast<std::size_t>(d)),
                        .covariance = std::vector<double>(static_cast<std::size_t>(d * d))};
  Eigen::Map<Eigen::RowVectorXd> mean(moments.mean.data(), d);
  mean = h.cast<double>().colwise().mean();
  Eigen::MatrixXd sum = Eigen::MatrixXd::Zero(d, d);
  for (std::int64_t begin = 0; begin < rows; begin += rows_at_a_time) {
    const RowMajor part = h.middleRows(begin, std::min(rows_at_a_time, rows - begin)).rowwise() - mean.cast<float>();
    Eigen::MatrixXf squares = Eigen::MatrixXf::Zero(d, d);
    squares.selfadjointView<Eigen::Lower>().rankUpdate(part.transpose());
    sum += squares.cast<double>();
  }
  sum /= static_cast<double>(rows);
  sum.diagonal().array() += least_variance * sum.trace() / static_cast<double>(d);
  Eigen::Map<Eigen::MatrixXd>(moments.covariance.data(), d, d) = sum.selfadjointView<Eigen::Lower>();
  return moments;
}

}  // namespace vqlm
