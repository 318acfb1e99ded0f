// Minimises a smooth function of many variables by its gradients: L-BFGS with a line search that halves its step
// (Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 3.1).
#pragma once

#include <functional>
#include <vector>

namespace vqlm {

struct LbfgsOptions {
  int memory = 8;       // pairs of steps and gradient differences that make the next direction
  int max_steps = 100;  // 0: none
};

/// The value at x; overwrites the gradient, as long as x.
using SmoothFunction = std::function<double(const std::vector<float>& x, std::vector<float>& gradient)>;

/// Moves x downhill until `go_on`, called after every step, answers false, the step does not lower the value any more, or
/// options.max_steps are done. Returns the number of steps. Memory: 2 options.memory + 4 vectors as long as x.
int minimise(const SmoothFunction& function, std::vector<float>& x, const LbfgsOptions& options,
             const std::function<bool(const std::vector<float>& x)>& go_on);

}  // namespace vqlm
