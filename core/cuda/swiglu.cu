// SwiGLU and GeGLU (arXiv 2002.05202). With s = sigmoid(z):  y = gate s up,  dup = dy gate s,
// dgate = dy up s (1 + gate z' (1 - s)).  z = gate is SiLU, z = 2 sqrt(2 / pi) (gate + 0.044715 gate^3) GELU in its tanh form
// (arXiv 1606.08415).  gate_up (N, 2F) = [gate | up].
//
// Bound by memory: 6 N F bytes forward, 10 N F backward (dy, gate_up, dgate_up), about 20 operations an element. N = 16,384,
// F = 2048: 201 MB and 336 MB, floors 47 us and 78 us at 4.3 TB/s; not measured.
//
// One thread reads a pack of gate and the pack of up at the same place, and writes both gradients: dgate_up may alias gate_up.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/swiglu.h"

namespace vqlm::cuda {
namespace {

/// To float's relative precision but for x < -87, where it becomes 0. (The CPU op takes 1 - sigmoid(x) apart, too; here the
/// digits that the subtraction loses are far below bf16's.)
__device__ __forceinline__ float sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + exp_approx(-x));
}

/// z and its derivative.
struct Silu {
  static __device__ __forceinline__ float z(float x) { return x; }
  static __device__ __forceinline__ float slope(float /*x*/) { return 1.0f; }
};
struct Gelu {
  static constexpr float linear = 1.5957691216057308f, cubic = 0.044715f * linear;
  static __device__ __forceinline__ float z(float x) { return x * (linear + cubic * x * x); }
  static __device__ __forceinline__ float slope(float x) { return linear + 3 * cubic * x * x; }
};

template <int width, class Gate>
__global__ void gated_forward_kernel(GridDependency dependency, __nv_bfloat16* y, const __nv_bfloat16* gate_up,
                                     std::int64_t rows, std::int64_t columns) {
  dependency.wait();
  const std::int64_t row = row_of_thread();
  if (row >= rows) return;
  for (std::int64_t c = threadIdx.x * width; c < columns; c += blockDim.x * width) {
    float gate[width], up[width];
    load_pack(gate, gate_up + 2 * row * columns + c);
    load_pack(up, gate_up + (2 * row + 1) * columns + c);
#pragma unroll
    for (int k = 0; k < width; ++k) up[k] *= gate[k] * sigmoid(Gate::z(gate[k]));
    store_pack(y + row * columns + c, up);
  }
}

template <int width, class Gate>
__global__ void gated_backward_kernel(GridDependency dependency, __nv_bfloat16* dgate_up, const __nv_bfloat16* dy,
                                      const __nv_bfloat16* gate_up, std::int64_t rows, std::int64_t columns) {
  dependency.wait();
  const std::int64_t row = row_of_thread();
  if (row >= rows) return;
  for (std::int64_t c = threadIdx.x * width; c < columns; c += blockDim.x * width) {
    const std::int64_t gate_at = 2 * row * columns + c, up_at = gate_at + columns;
    float gate[width], up[width], gradient[width];
    load_pack(gradient, dy + row * columns + c);
    load_pack(gate, gate_up + gate_at);
    load_pack(up, gate_up + up_at);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const float g = gate[k], s = sigmoid(Gate::z(g)), dy_s = gradient[k] * s;
      gate[k] = dy_s * up[k] * (1.0f + g * Gate::slope(g) * (1.0f - s));
      up[k] = dy_s * g;
    }
    store_pack(dgate_up + gate_at, gate);
    store_pack(dgate_up + up_at, up);
  }
}

template <class Gate>
void gated_forward(const Context& context, Tensor y, Tensor gate_up) {
  const std::int64_t rows = y.extent(0), columns = y.extent(1);
  if (y.numel() == 0) return;
  const bool wide = rows_in_packs<8>(columns, bf16(y), bf16(gate_up));
  const RowBlocks blocks = row_blocks(rows, wide ? columns / 8 : columns);
  launch(wide ? gated_forward_kernel<8, Gate> : gated_forward_kernel<1, Gate>,
         {blocks.grid, blocks.block, 0, context.stream}, bf16(y), bf16(gate_up), rows, columns);
}

template <class Gate>
void gated_backward(const Context& context, Tensor dgate_up, Tensor dy, Tensor gate_up) {
  const std::int64_t rows = dy.extent(0), columns = dy.extent(1);
  if (dy.numel() == 0) return;
  const bool wide = rows_in_packs<8>(columns, bf16(dgate_up), bf16(dy), bf16(gate_up));
  const RowBlocks blocks = row_blocks(rows, wide ? columns / 8 : columns);
  launch(wide ? gated_backward_kernel<8, Gate> : gated_backward_kernel<1, Gate>,
         {blocks.grid, blocks.block, 0, context.stream}, bf16(dgate_up), bf16(dy), bf16(gate_up), rows, columns);
}

}  // namespace

template <>
void run(const Context& context, const SwigluForward& op) {
  gated_forward<Silu>(context, op.y, op.gate_up);
}
template <>
void run(const Context& context, const SwigluBackward& op) {
  gated_backward<Silu>(context, op.dgate_up, op.dy, op.gate_up);
}
template <>
void run(const Context& context, const GegluForward& op) {
  gated_forward<Gelu>(context, op.y, op.gate_up);
}
template <>
void run(const Context& context, const GegluBackward& op) {
  gated_backward<Gelu>(context, op.dgate_up, op.dy, op.gate_up);
}

}  // namespace vqlm::cuda
