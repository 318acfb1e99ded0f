// Matrix products by cuBLASLt: bf16 operands with fp32 sums on tensor cores, or fp32 operands.
//
// Operations 2 M N K; bytes (M K + K N) A + M N C, read once each. Floor on an H200 at 790 TFLOP/s (measured there for bf16
// products): 2 M N K / 790e12 seconds. Own figures: not measured.
#include <algorithm>
#include <bit>

#include "core/cuda/cuda_check.h"
#include "core/cuda/matmul_plans.h"
#include "core/cuda/ops.h"
#include "core/log.h"
#include "core/ops/matmul.h"

namespace vqlm::cuda {
namespace {

constexpr int most_aligned = 256;  // bytes; cuBLASLt's own default

/// The power of two that the tensor's address divides by.
int alignment(Tensor x) {
  const auto address = reinterpret_cast<std::uintptr_t>(x.data());
  return std::min(1 << std::min(std::countr_zero(address), 8), most_aligned);
}

/// A matrix in the caller's memory, and its copy, whose rows begin at multiples of 16 bytes.
class AlignedCopy {
 public:
  AlignedCopy(Tensor original, std::int64_t rows, std::int64_t columns)
      : original_(original.data()), rows_(rows), columns_(columns), element_(size_of(original.dtype())) {
    const auto unit = static_cast<std::int64_t>(16 / element_);
    leading_ = (columns + unit - 1) / unit * unit;
  }

  std::int64_t leading() const { return leading_; }
  std::size_t bytes() const { return (pitch(leading_ * rows_) + 255) / 256 * 256; }
  void* data() const { return copy_; }
  void place(void* copy) { copy_ = copy; }
  void bring(cudaStream_t stream) const { move(copy_, pitch(leading_), original_, pitch(columns_), stream); }
  void take_back(cudaStream_t stream) const { move(original_, pitch(columns_), copy_, pitch(leading_), stream); }

 private:
  std::size_t pitch(std::int64_t elements) const { return static_cast<std::size_t>(elements) * element_; }
  void move(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, cudaStream_t stream) const {
    cuda_check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, pitch(columns_), static_cast<std::size_t>(rows_),
                                 cudaMemcpyDeviceToDevice, stream),
               "cudaMemcpy2DAsync");
  }

  void* original_;
  void* copy_ = nullptr;
  std::int64_t rows_, columns_, leading_ = 0;
  std::size_t element_;
};

/// A product for which the library has no algorithm where its operands stand: on copies that are aligned.
void run_on_copies(const Context& context, ProductShape shape, const Matmul& op) {
  AlignedCopy a(op.a, shape.rows_a(), shape.columns_a()), b(op.b, shape.rows_b(), shape.columns_b());
  AlignedCopy c(op.c, shape.m, shape.n);
  auto* scratch = static_cast<std::byte*>(context.workspace->get(a.bytes() + b.bytes() + c.bytes()));
  for (AlignedCopy* matrix : {&a, &b, &c}) {
    matrix->place(scratch);
    scratch += matrix->bytes();
  }
  if (context.plans->not_yet_named(shape)) {
    log::warn("cuBLASLt has no algorithm for a product of {}: it is made of aligned copies, slowly", shape.str());
  }
  shape.alignment_a = shape.alignment_b = shape.alignment_c = most_aligned;
  shape.leading_a = a.leading();
  shape.leading_b = b.leading();
  shape.leading_c = c.leading();
  a.bring(context.stream);
  b.bring(context.stream);
  if (shape.accumulate == Accumulate::yes) c.bring(context.stream);
  context.plans->run(shape, a.data(), b.data(), c.data());
  c.take_back(context.stream);
  context.stream.behind_other_work();
}

}  // namespace

template <>
void run(const Context& context, const Matmul& op) {
  const std::int64_t m = op.c.extent(0), n = op.c.extent(1), k = op.depth();
  if (m == 0 || n == 0) return;
  if (k == 0) {  // an empty sum; zero is zero bits in both dtypes
    if (op.accumulate == Accumulate::no) {
      cuda_check(cudaMemsetAsync(op.c.data(), 0, op.c.bytes(), context.stream), "cudaMemsetAsync");
      context.stream.behind_other_work();
    }
    return;
  }
  const ProductShape shape{.m = m,
                           .n = n,
                           .k = k,
                           .ta = op.ta,
                           .tb = op.tb,
                           .accumulate = op.accumulate,
                           .operands = op.a.dtype(),
                           .result = op.c.dtype(),
                           .alignment_a = alignment(op.a),
                           .alignment_b = alignment(op.b),
                           .alignment_c = alignment(op.c),
                           .leading_a = op.a.extent(1),
                           .leading_b = op.b.extent(1),
                           .leading_c = n};
  if (!context.plans->supports(shape)) return run_on_copies(context, shape, op);
  context.plans->run(shape, op.a.data(), op.b.data(), op.c.data());
}

}  // namespace vqlm::cuda
