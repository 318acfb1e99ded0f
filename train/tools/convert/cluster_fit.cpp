#include "train/tools/convert/cluster_fit.h"

// Products of one thread give the same bits whatever the number of cores.
#define EIGEN_DONT_PARALLELIZE
#include <spdlog/fmt/fmt.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "core/task_progress.h"
#include "core/tensor_arena.h"
#include "train/tools/convert/lbfgs.h"

namespace vqlm {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<RowMajor>;
using ConstRows = Eigen::Map<const RowMajor>;

// One of so many hidden states is held back.
constexpr std::int64_t held_back_share = 10;
// Steps that may bring nothing on what is held back, one after the other.
constexpr int patience = 8;
/// Numbers on the back end at a time: 64 MiB of logits over V or K.
constexpr std::int64_t numbers_at_a_time = std::int64_t{1} << 24;

/// exp(z - max z) in place; returns the sum.
double exponentials(Eigen::Ref<Eigen::RowVectorXf, 0, Eigen::InnerStride<>> z) {
  z.array() = (z.array() - z.maxCoeff()).exp();
  return z.cast<double>().sum();
}

/// Whitened hidden states with a last column of ones: x = (L^-1 (h - o), 1).
struct Whitened {
  Eigen::VectorXd mean;    // o
  Eigen::MatrixXd factor;  // L, lower triangular
  RowMajor rows;           // (rows, d + 1)
};

Whitened whiten(const HiddenStates& hidden, std::int64_t measured) {
  const std::int64_t d = hidden.dims;
  const ConstRows h(hidden.values.data(), hidden.rows, d);
  Whitened out;
  const HiddenMoments moments = moments_of(hidden, measured);
  out.mean = Eigen::Map<const Eigen::VectorXd>(moments.mean.data(), d);
  const Eigen::RowVectorXf mean = out.mean.transpose().cast<float>();
  out.factor = Eigen::Map<const Eigen::MatrixXd>(moments.covariance.data(), d, d).llt().matrixL();
  const Eigen::MatrixXf factor = out.factor.cast<float>();
  out.rows.resize(hidden.rows, d + 1);
  constexpr std::int64_t part = 4096;
  for (std::int64_t begin = 0; begin < hidden.rows; begin += part) {
    const std::int64_t count = std::min(part, hidden.rows - begin);
    Eigen::MatrixXf columns = (h.middleRows(begin, count).rowwise() - mean).transpose();
    factor.triangularView<Eigen::Lower>().solveInPlace(columns);
    out.rows.middleRows(begin, count).leftCols(d) = columns.transpose();
  }
  out.rows.col(d).setOnes();
  return out;
}

/// The cross entropy and its gradient, of y (K, d + 1) with logits x . y_k.
class CrossEntropy {
 public:
  CrossEntropy(const RowMajor& x, const std::vector<float>& targets, std::int64_t clusters, Backend& backend)
      : x_(x),
        targets_(targets.data(), x.rows(), clusters),
        backend_(backend),
        chunk_(std::clamp<std::int64_t>(numbers_at_a_time / (x.cols() + clusters), 1, x.rows())),
        host_(chunk_, clusters) {
    const std::int64_t width = x.cols();
    TensorArena arena;
    arena.add(rows_, {chunk_, width}, DType::f32);
    arena.add(logits_, {chunk_, clusters}, DType::f32);
    arena.add(codes_, {clusters, width}, DType::f32);
    arena.add(gradient_, {clusters, width}, DType::f32);
    storage_ = arena.allocate(backend, MemoryUse::workspace);
  }

  /// The mean over rows [begin, end), without their targets' entropy. Where `gradient` is given it is overwritten.
  double operator()(std::int64_t begin, std::int64_t end, const RowMajor& y, RowMajor* gradient) {
    backend_.copy_from_host(codes_, y.data());
    double sum = 0;
    for (std::int64_t row = begin; row < end; row += chunk_) {
      const std::int64_t count = std::min(chunk_, end - row);
      const Tensor logits = logits_.rows(0, count), rows = rows_.rows(0, count);
      backend_.copy_from_host(rows, x_.data() + row * x_.cols());
      backend_.run(Matmul{.c = logits, .a = rows, .b = codes_, .tb = Transpose::yes, .accumulate = Accumulate::no});
      backend_.copy_to_host(host_.data(), logits);
      sum += differences(row, count);
      if (gradient == nullptr) continue;
      backend_.copy_from_host(logits, host_.data());
      backend_.run(Matmul{.c = gradient_,
                          .a = logits,
                          .b = rows,
                          .ta = Transpose::yes,
                          .accumulate = row == begin ? Accumulate::no : Accumulate::yes});
    }
    if (gradient != nullptr) {
      backend_.copy_to_host(gradient->data(), gradient_);
      *gradient /= static_cast<float>(end - begin);
    }
    return sum / static_cast<double>(end - begin);
  }

 private:
  /// Logits in host_ become softmax less target; returns the sum of the rows' cross entropies.
  double differences(std::int64_t first, std::int64_t count) {
    std::vector<double> losses(static_cast<std::size_t>(count));
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      auto z = host_.row(i);
      const auto p = targets_.row(first + i);
      const double highest = z.maxCoeff();
      const double product = z.cast<double>().dot(p.cast<double>());
      const double total = exponentials(z);
      losses[static_cast<std::size_t>(i)] = highest + std::log(total) - product;
      z = z / static_cast<float>(total) - p;
    }
    double sum = 0;
    for (const double loss : losses) sum += loss;
    return sum;
  }

  const RowMajor& x_;
  ConstRows targets_;
  Backend& backend_;
  std::int64_t chunk_;
  RowMajor host_;
  Buffer storage_;
  Tensor rows_, logits_, codes_, gradient_;
};

double mean_entropy(const Eigen::Ref<const RowMajor>& p) {
  double sum = 0;
  for (Eigen::Index row = 0; row < p.rows(); ++row) {
    for (Eigen::Index k = 0; k < p.cols(); ++k) {
      const auto value = static_cast<double>(p(row, k));
      if (value > 0) sum -= value * std::log(value);
    }
  }
  return sum / static_cast<double>(p.rows());
}

/// 1 / sqrt(mean p_k (1 - p_k)), bounded for clusters that the text hardly has.
Eigen::VectorXf row_scales(const ConstRows& p) {
  const Eigen::VectorXd mean = p.cast<double>().colwise().mean();
  const Eigen::VectorXd square = p.cast<double>().colwise().squaredNorm() / static_cast<double>(p.rows());
  const double floor = 0.01 / static_cast<double>(p.cols());
  return (mean - square).cwiseMax(floor).cwiseSqrt().cwiseInverse().cast<float>();
}

}  // namespace

std::vector<float> cluster_probabilities(const WeightedVectors& w, const std::vector<float>& bias, const CodeMap& map,
                                         const HiddenStates& hidden, Backend& backend) {
  VQLM_ASSERT(hidden.dims == w.dims && map.vocab_size == w.rows);
  const std::int64_t chunk = std::clamp<std::int64_t>(numbers_at_a_time / w.rows, 1, hidden.rows);
  Tensor matrix, rows, product;
  TensorArena arena;
  arena.add(matrix, {w.rows, w.dims}, DType::f32);
  arena.add(rows, {chunk, w.dims}, DType::f32);
  arena.add(product, {chunk, w.rows}, DType::f32);
  const Buffer storage = arena.allocate(backend, MemoryUse::workspace);
  backend.copy_from_host(matrix, w.values.data());
  RowMajor host(chunk, w.rows);
  const Eigen::Map<const Eigen::RowVectorXf> biases(bias.data(), w.rows);
  std::vector<float> result(static_cast<std::size_t>(hidden.rows * map.clusters));
  TaskProgress progress("the clusters' probabilities on the text");
  for (std::int64_t begin = 0; begin < hidden.rows; begin += chunk) {
    progress.set(begin, hidden.rows);
    const std::int64_t count = std::min(chunk, hidden.rows - begin);
    backend.copy_from_host(rows.rows(0, count), hidden.values.data() + begin * w.dims);
    backend.run(Matmul{.c = product.rows(0, count),
                       .a = rows.rows(0, count),
                       .b = matrix,
                       .tb = Transpose::yes,
                       .accumulate = Accumulate::no});
    backend.copy_to_host(host.data(), product.rows(0, count));
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      auto z = host.row(i);
      z += biases;
      const double total = exponentials(z);
      std::vector<double> sums(static_cast<std::size_t>(map.clusters), 0);
      for (std::int64_t v = 0; v < w.rows; ++v) {
        sums[static_cast<std::size_t>(map.cluster_of_token[static_cast<std::size_t>(v)])] += static_cast<double>(z(v));
      }
      float* out = result.data() + (begin + i) * map.clusters;
      for (std::size_t k = 0; k < sums.size(); ++k) out[k] = static_cast<float>(sums[k] / total);
    }
  }
  return result;
}

std::int64_t fewest_states(std::int64_t d) {
  // Those that are left when the others are held back are at least d + 2.
  return (d + 2) + (d + 1) / (held_back_share - 1) + 1;
}

ClusterFit fit_clusters(std::vector<float>& codebook, std::vector<float>& bias, const HiddenStates& hidden,
                        const std::vector<float>& targets, Backend& backend) {
  const std::int64_t d = hidden.dims;
  const auto clusters = static_cast<std::int64_t>(bias.size());
  VQLM_ASSERT(hidden.rows >= fewest_states(d) && static_cast<std::int64_t>(targets.size()) == hidden.rows * clusters &&
              static_cast<std::int64_t>(codebook.size()) == clusters * d);
  ClusterFit fit{.fitted = hidden.rows - hidden.rows / held_back_share, .held_back = hidden.rows / held_back_share};
  TaskProgress progress(fmt::format("fitting {} clusters to {} hidden states", clusters, fit.fitted));
  const Whitened x = whiten(hidden, fit.fitted);
  const ConstRows p(targets.data(), hidden.rows, clusters);
  const Eigen::VectorXf scales = row_scales(ConstRows(targets.data(), fit.fitted, clusters));
  CrossEntropy cross_entropy(x.rows, targets, clusters, backend);

  // c . h + beta = (L^T c) . x + (beta + c . o)
  const Eigen::MatrixXd codes = ConstRows(codebook.data(), clusters, d).cast<double>();
  RowMajor y(clusters, d + 1), gradient_of_y(clusters, d + 1);
  y.leftCols(d) = (codes * x.factor).cast<float>();
  y.col(d) = (codes * x.mean + Eigen::Map<const Eigen::VectorXf>(bias.data(), clusters).cast<double>()).cast<float>();

  std::vector<float> numbers(static_cast<std::size_t>(y.size()));
  const auto rows_of = [&](const std::vector<float>& values) -> RowMajor {
    return scales.asDiagonal() * ConstRows(values.data(), clusters, d + 1);
  };
  Rows(numbers.data(), clusters, d + 1) = scales.cwiseInverse().asDiagonal() * y;
  const double entropy = mean_entropy(p.bottomRows(fit.held_back));
  double best = cross_entropy(fit.fitted, hidden.rows, y, nullptr);
  fit.before = best - entropy;
  int tried = 0;
  const SmoothFunction loss = [&](const std::vector<float>& values, std::vector<float>& gradient) {
    const double value = cross_entropy(0, fit.fitted, rows_of(values), &gradient_of_y);
    Rows(gradient.data(), clusters, d + 1) = scales.asDiagonal() * gradient_of_y;
    return value;
  };
  minimise(loss, numbers, {}, [&](const std::vector<float>& values) {
    progress.set(++tried, LbfgsOptions{}.max_steps);
    const RowMajor now = rows_of(values);
    const double value = cross_entropy(fit.fitted, hidden.rows, now, nullptr);
    if (value < best) {
      best = value;
      fit.steps = tried;
      y = now;
    }
    return tried - fit.steps < patience;
  });
  fit.after = best - entropy;
  if (fit.steps == 0) return fit;

  const Eigen::MatrixXd found =
      x.factor.transpose().triangularView<Eigen::Upper>().solve(y.leftCols(d).cast<double>().transpose()).transpose();
  Rows(codebook.data(), clusters, d) = found.cast<float>();
  Eigen::Map<Eigen::VectorXf>(bias.data(), clusters) = (y.col(d).cast<double>() - found * x.mean).cast<float>();
  return fit;
}

}  // namespace vqlm
