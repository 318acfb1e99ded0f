// Log-probabilities of the members of chosen clusters, for exact sampling and the most probable tokens.
//
// A block takes one entry. The row of h stands in shared memory as floats; a warp makes one member's score at a time from
// the codebook's rows that its codes name, 16 bytes a lane. Bytes of an entry with n members: 2 n d from the second-level
// cache, which holds the codebook (Q d bf16), 4 L of output; n 200, d 4,096: 1.6 MB, about 20 us for one entry alone by one
// multiprocessor's 80 GB/s or so, less each for many (estimate); not measured. Members' own vectors are the same bytes in
// one piece, from memory.
#include <cmath>

#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/cluster_log_probs.h"

namespace vqlm::cuda {
namespace {

constexpr int threads = 256;

struct Operands {
  float* out;              // (m, largest)
  const __nv_bfloat16* h;  // (N, d)
  const std::int32_t *rows, *clusters;
  const __nv_bfloat16* codebook;  // (G, Q, width), or (V, d): own vectors
  const float* bias;
  const std::int32_t *member_begin, *members;
  const std::uint8_t* codes;  // (V, G) in member order, or null: own vectors, one group
  std::int64_t largest;
  int d, groups, codes_per_group, width;
};

/// h . u_w, in every lane of the warp.
template <int pack>
__device__ __forceinline__ float member_score(const Operands& p, const float* h, std::int64_t member) {
  const std::uint8_t* const codes = p.codes == nullptr ? nullptr : p.codes + member * p.groups;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % warp_size * pack; i < p.d; i += warp_size * pack) {
    const int g = i / p.width;
    const std::int64_t row = codes == nullptr ? member : std::int64_t{g} * p.codes_per_group + codes[g];
    float u[pack], x[pack];
    load_pack(u, p.codebook + row * p.width + i % p.width);
    load_pack(x, h + i);
#pragma unroll
    for (int j = 0; j < pack; ++j) sum += x[j] * u[j];
  }
  return warp_sum(sum);
}

template <int pack>
__global__ void __launch_bounds__(threads) cluster_log_probs_kernel(GridDependency dependency, Operands p) {
  dependency.wait();
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t entry = blockIdx.x;
  const std::int32_t cluster = p.clusters[entry];
  const std::int32_t first = p.member_begin[cluster], count = p.member_begin[cluster + 1] - first;
  float* const out = p.out + entry * p.largest;
  float* const h = dynamic_shared<float>();  // (d), none where G = 0
  if (p.groups > 0) {
    for (int i = thread; i < p.d; i += threads) h[i] = to_float(p.h[std::int64_t{p.rows[entry]} * p.d + i]);
    __syncthreads();
  }
  for (int w = thread / warp_size; w < count; w += threads / warp_size) {
    const std::int64_t member = first + w;
    float score = p.bias[p.members[member]];
    if (p.groups > 0) score += member_score<pack>(p, h, member);
    if (thread % warp_size == 0) out[w] = score;
  }
  __syncthreads();
  float maximum = -INFINITY, sum = 0;
  for (std::int64_t w = thread; w < count; w += threads) maximum = fmaxf(maximum, out[w]);
  maximum = block_max(maximum);
  for (std::int64_t w = thread; w < count; w += threads) sum += expf(out[w] - maximum);
  const float lse = maximum + logf(block_sum(sum));
  for (std::int64_t w = thread; w < p.largest; w += threads) out[w] = w < count ? out[w] - lse : -INFINITY;
}

}  // namespace

template <>
void run(const Context& context, const ClusterLogProbs& op) {
  const CodeMapView& map = op.map;
  const std::int64_t entries = op.rows.numel();
  if (op.out.numel() == 0) return;
  Operands p{};
  p.out = op.out.f32();
  p.h = bf16(op.h);
  p.rows = op.rows.i32();
  p.clusters = op.clusters.i32();
  p.codebook = bf16(op.member_codebook);
  p.bias = op.token_bias.f32();
  p.member_begin = map.member_begin.i32();
  p.members = map.members.i32();
  p.largest = map.largest_cluster;
  p.d = static_cast<int>(op.h.extent(1));
  if (are_own_vectors(op.member_codebook)) {
    p.groups = 1;
    p.width = p.d;
  } else if (op.member_codebook) {
    p.codes = map.member_codes.as<std::uint8_t>();
    p.groups = static_cast<int>(op.member_codebook.extent(0));
    p.codes_per_group = static_cast<int>(op.member_codebook.extent(1));
    p.width = static_cast<int>(op.member_codebook.extent(2));
  }
  const bool wide = p.groups > 0 && rows_in_packs<8>(p.width, p.codebook);
  const std::size_t shared = p.groups > 0 ? static_cast<std::size_t>(p.d) * sizeof(float) : 0;
  launch(wide ? cluster_log_probs_kernel<8> : cluster_log_probs_kernel<1>,
         {static_cast<unsigned>(entries), threads, shared, context.stream}, p);
}

}  // namespace vqlm::cuda
