#include "train/tools/convert/lbfgs.h"

// Products of one thread give the same bits whatever the number of cores.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <deque>

namespace vqlm {
namespace {

constexpr int most_halvings = 20;
// Of the slope's promise, which a step must keep.
constexpr double sufficient = 1e-4;

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  const auto size = static_cast<Eigen::Index>(a.size());
  // Sums of 1,024 in f32, and those in f64: neither slow nor lost in rounding.
  constexpr Eigen::Index part = 1024;
  double sum = 0;
  for (Eigen::Index i = 0; i < size; i += part) {
    const Eigen::Index count = std::min(part, size - i);
    sum += static_cast<double>(Eigen::Map<const Eigen::VectorXf>(a.data() + i, count)
                                   .dot(Eigen::Map<const Eigen::VectorXf>(b.data() + i, count)));
  }
  return sum;
}

/// x += scale * y.
void add(std::vector<float>& x, double scale, const std::vector<float>& y) {
  const auto size = static_cast<Eigen::Index>(x.size());
  Eigen::Map<Eigen::VectorXf>(x.data(), size) +=
      static_cast<float>(scale) * Eigen::Map<const Eigen::VectorXf>(y.data(), size);
}

struct CurvaturePair {
  std::vector<float> step, difference;  // of x and of the gradient
  double product = 0;                   // of the two
};

/// -H g by the two-loop recursion, H the inverse Hessian that the pairs tell of.
std::vector<float> direction(const std::deque<CurvaturePair>& pairs, const std::vector<float>& gradient) {
  std::vector<float> q = gradient;
  std::vector<double> alpha(pairs.size());
  for (std::size_t i = pairs.size(); i-- > 0;) {
    alpha[i] = dot(pairs[i].step, q) / pairs[i].product;
    add(q, -alpha[i], pairs[i].difference);
  }
  const double scale = pairs.empty() ? 1 : pairs.back().product / dot(pairs.back().difference, pairs.back().difference);
  for (float& value : q) value *= static_cast<float>(-scale);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const double beta = dot(pairs[i].difference, q) / pairs[i].product;
    add(q, -alpha[i] - beta, pairs[i].step);
  }
  return q;
}

}  // namespace

int minimise(const SmoothFunction& function, std::vector<float>& x, const LbfgsOptions& options,
             const std::function<bool(const std::vector<float>& x)>& go_on) {
  std::vector<float> gradient(x.size()), next_gradient(x.size());
  double value = function(x, gradient);
  std::deque<CurvaturePair> pairs;
  for (int steps = 0; steps < options.max_steps; ++steps) {
    std::vector<float> way = direction(pairs, gradient);
    const double slope = dot(way, gradient);
    if (!(slope < 0)) return steps;
    std::vector<float> next;
    double length = 1, next_value = 0;
    int halvings = 0;
    for (; halvings <= most_halvings; ++halvings, length /= 2) {
      next = x;
      add(next, length, way);
      next_value = function(next, next_gradient);
      if (next_value <= value + sufficient * length * slope) break;
    }
    if (halvings > most_halvings || !(next_value < value)) return steps;
    CurvaturePair pair{.step = std::move(way), .difference = next_gradient, .product = 0};
    for (float& component : pair.step) component *= static_cast<float>(length);
    add(pair.difference, -1, gradient);
    pair.product = dot(pair.step, pair.difference);
    // A pair without curvature, of rounding, would make a direction that does not lead down.
    if (pair.product > 1e-8 * std::sqrt(dot(pair.step, pair.step) * dot(pair.difference, pair.difference))) {
      pairs.push_back(std::move(pair));
      if (static_cast<int>(pairs.size()) > options.memory) pairs.pop_front();
    }
    x = std::move(next);
    std::swap(gradient, next_gradient);
    value = next_value;
    if (!go_on(x)) return steps + 1;
  }
  return options.max_steps;
}

}  // namespace vqlm
