// Documents of sequences. A warp scans a sequence, 32 tokens at a time, forwards for the beginnings and backwards for the ends:
// T / 32 steps of five shuffles, once a micro-batch; 4 + 8 bytes a token. B = 8, T = 4,096: 0.4 MB; bound by the 256 steps one
// after the other, about 30 us; not measured.
#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/ops/documents.h"

namespace vqlm::cuda {
namespace {

/// Block b: sequence b.
__global__ void __launch_bounds__(warp_size)
    find_documents_kernel(GridDependency dependency, std::int32_t* documents, const std::int32_t* tokens,
                          std::int32_t end_of_text, int length, int past, std::int64_t capacity) {
  dependency.wait();
  const std::int64_t b = blockIdx.x;
  std::int32_t* const begins = documents + b * capacity;
  std::int32_t* const ends = documents + (gridDim.x + b) * capacity;
  const std::int32_t* const row = tokens + b * length;
  const int lane = static_cast<int>(threadIdx.x);
  int begin = past == 0 ? 0 : begins[past];
  __syncwarp();  // before lane 0 writes there
  for (int first = 0; first < length; first += warp_size) {
    const int t = first + lane;
    // Where a document begins behind this token; the largest of those before is where its successor's began.
    int behind = t < length && row[t] == end_of_text ? past + t + 1 : 0;
#pragma unroll
    for (int distance = 1; distance < warp_size; distance *= 2) {
      const int other = __shfl_up_sync(full_mask, behind, distance);
      if (lane >= distance) behind = max(behind, other);
    }
    const int before = __shfl_up_sync(full_mask, behind, 1);
    if (t < length) begins[past + t] = lane == 0 ? begin : max(begin, before);
    begin = max(begin, __shfl_sync(full_mask, behind, warp_size - 1));
  }
  if (lane == 0 && past + length < capacity) begins[past + length] = begin;
  int end = past + length;
  for (int first = (length - 1) / warp_size * warp_size; first >= 0; first -= warp_size) {
    const int t = first + lane;
    int here = t < length && row[t] == end_of_text ? past + t + 1 : past + length;
#pragma unroll
    for (int distance = 1; distance < warp_size; distance *= 2) {
      const int other = __shfl_down_sync(full_mask, here, distance);
      if (lane + distance < warp_size) here = min(here, other);
    }
    here = min(here, end);
    if (t < length) ends[past + t] = here;
    end = __shfl_sync(full_mask, here, 0);
  }
}

}  // namespace

template <>
void run(const Context& context, const FindDocuments& op) {
  const std::int64_t batch = op.tokens.extent(0), length = op.tokens.extent(1);
  if (batch == 0 || length == 0) return;
  launch(find_documents_kernel, {static_cast<unsigned>(batch), warp_size, 0, context.stream}, op.documents.i32(),
         op.tokens.i32(), op.end_of_text, static_cast<int>(length), static_cast<int>(op.past), op.documents.extent(2));
}

}  // namespace vqlm::cuda
