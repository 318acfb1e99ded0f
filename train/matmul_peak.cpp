#include "train/matmul_peak.h"

#include <algorithm>
#include <chrono>

#include "train/host_collectives.h"

namespace vqlm {

double measure_matmul_peak(Backend& backend, Communicator& group, double seconds) {
  constexpr std::int64_t size = 1024;
  constexpr int windows = 5;
  constexpr double operations = 2.0 * size * size * size;
  const Buffer storage = backend.allocate(3 * size * size * sizeof(float), MemoryUse::workspace);
  const Tensor all = storage.view({3, size, size});
  backend.fill(all, 0.5f);
  const auto matrix = [&](std::int64_t index) { return all.rows(index, 1).view({size, size}); };
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  const auto multiply = [&] {
    backend.matmul(matrix(0), matrix(1), matrix(2), Transpose::no, Transpose::yes, Accumulate::no);
    backend.synchronize();
  };
  multiply();  // the first call generates code
  // Mean rates of short windows that all ranks begin together: ranks that take turns on a core each have a best moment
  // alone, but only what they do at the same time adds up to the machine's rate. The best window is the one least disturbed.
  std::vector<double> rates(windows, 0.0);
  for (double& rate : rates) {
    group.barrier();
    const double begin = now();
    double done = 0;
    while (now() - begin < seconds / windows) {
      multiply();
      done += operations;
    }
    rate = done / (now() - begin);
  }
  sum_over(backend, group, rates);
  return *std::max_element(rates.begin(), rates.end());
}

}  // namespace vqlm
