#include "train/engine/matmul_peak.h"

#include <algorithm>
#include <memory>

#include "core/host_collectives.h"
#include "train/engine/bench_tensors.h"
#include "train/engine/lap_timer.h"

namespace vqlm {
namespace {

class Product {
 public:
  Product(Backend& backend, std::int64_t size)
      : backend_(backend),
        tensors_(backend),
        c_(tensors_.make({size, size}, backend.activation_dtype())),
        a_(tensors_.normal({size, size}, backend.activation_dtype())),
        b_(tensors_.normal({size, size}, backend.activation_dtype())) {
    multiply();  // the first call generates code
    backend_.synchronize();
  }

  double operations() const {
    const auto size = static_cast<double>(c_.extent(0));
    return 2 * size * size * size;
  }

  /// Of `count` products, one after the other.
  double seconds(int count) {
    LapTimer timer(backend_);
    timer.lap();
    for (int i = 0; i < count; ++i) multiply();
    timer.lap();
    return timer.seconds().front();
  }

 private:
  void multiply() {
    backend_.run(Matmul{.c = c_, .a = a_, .b = b_, .tb = Transpose::yes, .accumulate = Accumulate::no});
  }

  Backend& backend_;
  BenchTensors tensors_;
  Tensor c_, a_, b_;
};

double seconds_of_one(Product& product) {
  return std::max(1e-9, std::min({product.seconds(1), product.seconds(1), product.seconds(1)}));
}

}  // namespace

MatmulPeak measure_matmul_peak(Backend& backend, Communicator& group, double seconds) {
  constexpr int windows = 5;
  constexpr std::int64_t largest = 8192;
  // Smaller products than these do not keep a GPU busy between two of them.
  constexpr double enough = 1e-3;
  std::int64_t size = backend.host_accessible() ? 1024 : 256;
  auto product = std::make_unique<Product>(backend, size);
  double one = seconds_of_one(*product);
  while (!backend.host_accessible() && size < largest && one < enough) {
    product.reset();
    size *= 2;
    product = std::make_unique<Product>(backend, size);
    one = seconds_of_one(*product);
  }
  const int count = static_cast<int>(std::clamp(seconds / windows / one, 1.0, 1e6));
  // Mean rates of short windows that all ranks begin together: ranks that take turns on a core each have a best moment
  // alone, but only what they do at the same time adds up to the machine's rate. The best window is the one least disturbed.
  std::vector<double> rates(windows, 0.0);
  for (double& rate : rates) {
    group.barrier();
    rate = count * product->operations() / product->seconds(count);
  }
  sum_over(backend, group, rates);
  return {*std::max_element(rates.begin(), rates.end()), size};
}

}  // namespace vqlm
