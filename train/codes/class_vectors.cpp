#include "train/codes/class_vectors.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace vqlm {
namespace {

/// To 8 significant bits.
double rounded_scale(double value) {
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(fraction * 256) / 256, exponent);
}

}  // namespace

std::vector<double> shrunk_class_means(const ClassSums& sums, const std::vector<std::int32_t>& cluster_of_token,
                                       std::int64_t clusters) {
  const auto vocab = static_cast<std::size_t>(sums.vocab_size), dims = static_cast<std::size_t>(sums.dims);
  VQLM_ASSERT(cluster_of_token.size() == vocab);
  const auto k_count = static_cast<std::size_t>(clusters);
  // One row more, of all tokens. Integers: the same in any order.
  std::vector<std::int64_t> cluster_sums((k_count + 1) * dims, 0), cluster_rows(k_count + 1, 0);
  for (std::size_t v = 0; v < vocab; ++v) {
    for (const std::size_t k : {static_cast<std::size_t>(cluster_of_token[v]), k_count}) {
      cluster_rows[k] += sums.counts[v];
      for (std::size_t i = 0; i < dims; ++i) cluster_sums[k * dims + i] += sums.sums[v * dims + i];
    }
  }
  std::vector<double> means(vocab * dims, 0.0);
  if (cluster_rows[k_count] == 0) return means;
  for (std::size_t v = 0; v < vocab; ++v) {
    auto k = static_cast<std::size_t>(cluster_of_token[v]);
    if (cluster_rows[k] == 0) k = k_count;
    const auto rows = static_cast<double>(cluster_rows[k]), own = static_cast<double>(sums.counts[v]);
    for (std::size_t i = 0; i < dims; ++i) {
      const double prior = static_cast<double>(cluster_sums[k * dims + i]) / rows;
      const double sum = static_cast<double>(sums.sums[v * dims + i]);
      means[v * dims + i] = ClassSums::unit * (sum + prior_rows * prior) / (own + prior_rows);
    }
  }
  return means;
}

void subtract_mean(std::vector<double>& x, std::int64_t dims, const std::vector<float>& weight) {
  const auto width = static_cast<std::size_t>(dims);
  VQLM_ASSERT(x.size() == weight.size() * width);
  std::vector<double> mean(width, 0.0);
  double total = 0;
  for (std::size_t row = 0; row < weight.size(); ++row) {
    const auto w = static_cast<double>(weight[row]);
    total += w;
    for (std::size_t i = 0; i < width; ++i) mean[i] += w * x[row * width + i];
  }
  for (std::size_t j = 0; j < x.size(); ++j) x[j] -= mean[j % width] / total;
}

std::vector<float> on_coarse_grid(const std::vector<double>& x, double steps) {
  std::vector<float> result(x.size(), 0.0f);
  const double squares = std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
  if (!(squares > 0)) return result;
  const double step = rounded_scale(std::sqrt(squares / static_cast<double>(x.size()))) / steps;
  std::transform(x.begin(), x.end(), result.begin(),
                 [&](double value) { return static_cast<float>(std::nearbyint(value / step)); });
  return result;
}

}  // namespace vqlm
