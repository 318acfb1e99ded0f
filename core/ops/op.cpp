#include "core/ops/op.h"

#include <numeric>

namespace vqlm {
namespace {

double bytes_of(std::initializer_list<Tensor> tensors) {
  return std::accumulate(tensors.begin(), tensors.end(), 0.0, [](double bytes, const Tensor& tensor) {
    return bytes + static_cast<double>(tensor.bytes());
  });
}

}  // namespace

OpCost cost_of(std::initializer_list<Tensor> read, std::initializer_list<Tensor> written, double flops) {
  return {.flops = flops, .bytes_read = bytes_of(read), .bytes_written = bytes_of(written)};
}

void check_dtype(DType dtype, std::initializer_list<Tensor> tensors, std::source_location caller) {
  for (const Tensor& tensor : tensors) {
    if (tensor && tensor.dtype() != dtype) {
      assertion_failed("a tensor's dtype as the op wants it", caller.file_name(), static_cast<int>(caller.line()));
    }
  }
}

}  // namespace vqlm
