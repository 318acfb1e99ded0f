#include "train/matmul_peak.h"

#include <algorithm>
#include <chrono>

#include "train/host_collectives.h"

namespace vqlm {

double measure_matmul_peak(Backend& backend, Communicator& group, double seconds) {
  constexpr std::int64_t size = 1024;
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
  group.barrier();
  double best = 0;
  double done = 0;
  const double begin = now();
  while (now() - begin < seconds) {
    const double start = now();
    multiply();
    done += operations;
    best = std::max(best, operations / (now() - start));
  }
  // Ranks that take turns on a core each have a best moment alone; only their mean rates add up to the machine's.
  std::vector<double> sum{group.size() > 1 ? done / (now() - begin) : best};
  sum_over(backend, group, sum);
  return sum[0];
}

}  // namespace vqlm
