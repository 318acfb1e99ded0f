#include "train/codes/map_distortion.h"

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace vqlm {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Takes from every row in columns [begin, begin + width) the weighted mean of the rows of its class.
template <class ClassOf>
void subtract_means(RowMajor& x, const std::vector<double>& weight, std::int64_t begin, std::int64_t width,
                    std::int64_t classes, ClassOf class_of) {
  Eigen::MatrixXd means = Eigen::MatrixXd::Zero(classes, width);
  std::vector<double> weights(static_cast<std::size_t>(classes), 0);
  for (std::int64_t v = 0; v < x.rows(); ++v) {
    const double w = weight[static_cast<std::size_t>(v)];
    means.row(class_of(v)) += w * x.row(v).segment(begin, width).cast<double>();
    weights[static_cast<std::size_t>(class_of(v))] += w;
  }
  for (std::int64_t k = 0; k < classes; ++k) {
    if (weights[static_cast<std::size_t>(k)] > 0) means.row(k) /= weights[static_cast<std::size_t>(k)];
  }
  for (std::int64_t v = 0; v < x.rows(); ++v) {
    x.row(v).segment(begin, width) -= means.row(class_of(v)).template cast<float>();
  }
}

/// Weighted squared lengths of the rows, (V).
std::vector<double> squares_of(const RowMajor& x, const std::vector<double>& weight) {
  std::vector<double> squares;
  for (std::int64_t v = 0; v < x.rows(); ++v) {
    squares.push_back(weight[static_cast<std::size_t>(v)] * static_cast<double>(x.row(v).squaredNorm()));
  }
  return squares;
}

}  // namespace

std::vector<BandDistortion> distortion_by_frequency(const CodeMap& map, const std::vector<float>& vectors,
                                                    std::int64_t dims, const std::vector<std::int64_t>& counts) {
  VQLM_ASSERT(static_cast<std::int64_t>(vectors.size()) == map.vocab_size * dims);
  VQLM_ASSERT(map.groups == 0 || dims % map.groups == 0);
  std::vector<double> weight(static_cast<std::size_t>(map.vocab_size), 1);
  for (std::size_t v = 0; v < counts.size(); ++v) weight[v] = std::sqrt(static_cast<double>(counts[v]) + 1);
  RowMajor x = Eigen::Map<const RowMajor>(vectors.data(), map.vocab_size, dims);
  subtract_means(x, weight, 0, dims, 1, [](std::int64_t) { return 0; });
  const std::vector<double> all = squares_of(x, weight);
  subtract_means(x, weight, 0, dims, map.clusters,
                 [&](std::int64_t v) { return map.cluster_of_token[static_cast<std::size_t>(v)]; });
  const std::vector<double> after_clusters = squares_of(x, weight);
  for (int g = 0; g < map.groups; ++g) {
    subtract_means(x, weight, g * (dims / map.groups), dims / map.groups, map.codes,
                   [&](std::int64_t v) { return map.member_codes[static_cast<std::size_t>(v * map.groups + g)]; });
  }
  if (map.groups > 0) {  // a constant of a whole cluster is the codebook's to give
    subtract_means(x, weight, 0, dims, map.clusters,
                   [&](std::int64_t v) { return map.cluster_of_token[static_cast<std::size_t>(v)]; });
  }
  const std::vector<double> after_codes = squares_of(x, weight);

  std::vector<std::int32_t> order(weight.size());
  std::iota(order.begin(), order.end(), 0);
  if (!counts.empty()) order = most_frequent_tokens(counts, map.vocab_size);
  const auto kept = [&](const BandDistortion& band, const std::vector<double>& left) {
    double whole = 0, rest = 0;
    for (std::int64_t place = band.first; place < band.last; ++place) {
      const auto v = static_cast<std::size_t>(order[static_cast<std::size_t>(place)]);
      whole += all[v];
      rest += left[v];
    }
    return whole > 0 ? 1 - rest / whole : 1;
  };
  std::vector<BandDistortion> bands{{0, map.vocab_size, 0, 0}};
  std::int64_t first = 0;
  for (const std::int64_t end : {std::int64_t{100}, std::int64_t{1'000}, std::int64_t{10'000}, map.vocab_size}) {
    const std::int64_t last = std::min(end, map.vocab_size);
    if (last > first) bands.push_back({first, last, 0, 0});
    first = last;
  }
  for (BandDistortion& band : bands) {
    band.kept_by_clusters = kept(band, after_clusters);
    band.kept_by_codes = kept(band, after_codes);
  }
  return bands;
}

}  // namespace vqlm
