// Matrix products by cuBLASLt: bf16 operands with fp32 sums on tensor cores, or fp32 operands.
//
// Operations 2 M N K; bytes (M K + K N) A + M N C, read once each. Floor on an H200 at 790 TFLOP/s (measured there for bf16
// products): 2 M N K / 790e12 seconds. Own figures: not measured.
//
// Row-major c (M, N) is column-major c^T (N, M), so what is computed is c^T = op(b)^T op(a)^T with b in first place and
// each operand transposed exactly where it is here.
#include <algorithm>
#include <bit>

#include "core/cuda/cuda_check.h"
#include "core/cuda/matmul_plans.h"
#include "core/cuda/ops.h"
#include "core/log.h"
#include "core/ops/matmul.h"

namespace vqlm::cuda {
namespace {

cudaDataType data_type(Tensor x) {
  VQLM_ASSERT(x.dtype() == DType::f32 || x.dtype() == DType::bf16);
  return x.dtype() == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// The power of two that the tensor's address divides by, at most 256 (cuBLASLt's own default).
int alignment(Tensor x) {
  const auto address = reinterpret_cast<std::uintptr_t>(x.data());
  return 1 << std::min(std::countr_zero(address), 8);
}

/// A column-major matrix in the caller's memory, and its copy, whose columns begin at multiples of 16 bytes.
class AlignedCopy {
 public:
  AlignedCopy(Tensor original, std::int64_t rows, std::int64_t columns)
      : original_(original.data()), rows_(rows), columns_(columns), element_(size_of(original.dtype())) {
    const auto unit = static_cast<std::int64_t>(16 / element_);
    leading_ = (rows + unit - 1) / unit * unit;
  }

  std::int64_t leading() const { return leading_; }
  std::size_t bytes() const { return (pitch(leading_ * columns_) + 255) / 256 * 256; }
  void* data() const { return copy_; }
  void place(void* copy) { copy_ = copy; }
  void bring(cudaStream_t stream) const { move(copy_, pitch(leading_), original_, pitch(rows_), stream); }
  void take_back(cudaStream_t stream) const { move(original_, pitch(rows_), copy_, pitch(leading_), stream); }

 private:
  std::size_t pitch(std::int64_t elements) const { return static_cast<std::size_t>(elements) * element_; }
  void move(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, cudaStream_t stream) const {
    cuda_check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, pitch(rows_), static_cast<std::size_t>(columns_),
                                 cudaMemcpyDeviceToDevice, stream),
               "cudaMemcpy2DAsync");
  }

  void* original_;
  void* copy_ = nullptr;
  std::int64_t rows_, columns_, leading_ = 0;
  std::size_t element_;
};

/// A product for which the library has no algorithm where its operands stand: on copies that are aligned.
void run_on_copies(const Context& context, ProductShape shape, Tensor c, Tensor a, Tensor b, Accumulate accumulate) {
  AlignedCopy first(b, shape.rows_a(), shape.columns_a()), second(a, shape.rows_b(), shape.columns_b());
  AlignedCopy product(c, shape.rows, shape.columns);
  auto* scratch = static_cast<std::byte*>(context.workspace->get(first.bytes() + second.bytes() + product.bytes()));
  for (AlignedCopy* matrix : {&first, &second, &product}) {
    matrix->place(scratch);
    scratch += matrix->bytes();
  }
  if (context.plans->not_yet_named(shape)) {
    log::warn("cuBLASLt has no algorithm for a product of {}: it is made of aligned copies, slowly", shape.str());
  }
  shape.alignment_a = shape.alignment_b = shape.alignment_d = 256;
  shape.leading_a = first.leading();
  shape.leading_b = second.leading();
  shape.leading_d = product.leading();
  first.bring(context.stream);
  second.bring(context.stream);
  if (accumulate == Accumulate::yes) product.bring(context.stream);
  context.plans->run(shape, first.data(), second.data(), product.data(), accumulate == Accumulate::yes ? 1.0f : 0.0f,
                     context.stream);
  product.take_back(context.stream);
}

}  // namespace

template <>
void run(const Context& context, const Matmul& op) {
  const std::int64_t m = op.c.extent(0), n = op.c.extent(1), k = op.depth();
  if (m == 0 || n == 0) return;
  if (k == 0) {  // an empty sum; zero is zero bits in both dtypes
    if (op.accumulate == Accumulate::no) {
      cuda_check(cudaMemsetAsync(op.c.data(), 0, op.c.bytes(), context.stream), "cudaMemsetAsync");
    }
    return;
  }
  const auto operation = [](Transpose transpose) { return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N; };
  const ProductShape shape{.rows = n,
                           .columns = m,
                           .depth = k,
                           .transpose_a = operation(op.tb),
                           .transpose_b = operation(op.ta),
                           .operands = data_type(op.a),
                           .result = data_type(op.c),
                           .alignment_a = alignment(op.b),
                           .alignment_b = alignment(op.a),
                           .alignment_d = alignment(op.c)};
  if (!context.plans->supports(shape)) return run_on_copies(context, shape, op.c, op.a, op.b, op.accumulate);
  context.plans->run(shape, op.b.data(), op.a.data(), op.c.data(), op.accumulate == Accumulate::yes ? 1.0f : 0.0f,
                     context.stream);
}

}  // namespace vqlm::cuda
