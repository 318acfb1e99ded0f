#include "tests/simt/async_kernels.h"

#include <cstring>

#include "core/cuda/launch.h"
#include "core/cuda/tensor_core_sm90.h"

namespace vqlm::cuda {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int image_room = 32 * 1024;  // bytes of an operand

__device__ MatrixDescriptor stage(Bf16* room, const OperandImage& image) {
  for (int i = static_cast<int>(threadIdx.x); i < image.elements; i += 128) room[i] = image.bytes[i];
  return matrix_descriptor(shared_address(room) + image.start, image.leading, image.stride, image.swizzle);
}

template <Major b_major, int N>
__global__ void multiply_images_kernel(float* c, OperandImage a, OperandImage b) {
  Bf16* const rooms = dynamic_shared_1024<Bf16>();
  const MatrixDescriptor a_at = stage(rooms, a), b_at = stage(rooms + image_room / 2, b);
  const int thread = static_cast<int>(threadIdx.x), row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
  unsigned registers[4] = {};
  if (a.elements == 0) {
    for (int r = 0; r < 4; ++r) std::memcpy(&registers[r], a.bytes + (row + r % 2 * 8) * 16 + column + r / 2 * 8, 4);
  }
  fence_proxy_async();
  __syncthreads();
  float sums[N][4];
  wgmma_fence(sums);
  for (int i = 0; i < 2; ++i) {
    const Sums begin = i == 0 ? Sums::begin : Sums::add;
    if (a.elements == 0) {
      wgmma<b_major>(sums, registers, b_at, begin);
    } else {
      wgmma<b_major>(sums, a_at, b_at, begin);
    }
    wgmma_commit();
    // One operand in registers is free only behind the wait.
    if (a.elements == 0) wgmma_wait<0>(sums);
    if (a.elements == 0) wgmma_fence(sums);
  }
  wgmma_wait<0>(sums);
  for (int n = 0; n < N; ++n) {
    for (int e = 0; e < 4; ++e) c[(row + e / 2 * 8) * 8 * N + 8 * n + column + e % 2] = sums[n][e];
  }
}

template <int rank>
__global__ void copy_box_kernel(unsigned char* raw, const __grid_constant__ CUtensorMap in,
                                const __grid_constant__ CUtensorMap out, bool store, BoxPosition from, BoxPosition to,
                                int bytes) {
  unsigned char* const box = dynamic_shared_1024<unsigned char>();
  auto* const full = reinterpret_cast<Mbarrier*>(box + (bytes + 1023) / 1024 * 1024);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  int at[rank], store_at[rank];
  for (int d = 0; d < rank; ++d) {
    at[d] = from.at[d];
    store_at[d] = to.at[d];
  }
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(full, static_cast<unsigned>(bytes));
    bulk_load(box, in, full, at);
  }
  mbarrier_wait(full, 0);
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += 32) raw[i] = box[i];
  if (!store || threadIdx.x != 0) return;
  bulk_store(out, box, store_at);
  bulk_store_commit();
  bulk_store_wait<0>();
}

__global__ void copy_bytes_kernel(unsigned char* out, const unsigned char* in, int bytes) {
  auto* const full = dynamic_shared<Mbarrier>();
  auto* const room = reinterpret_cast<unsigned char*>(full + 2);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect_tx(full, static_cast<unsigned>(bytes));
    bulk_load_bytes(room, in, static_cast<unsigned>(bytes), full);
  }
  __syncthreads();
  mbarrier_wait(full, 0);
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += 32) out[i] = room[i];
}

__global__ void take_turns_kernel(int* out, int rounds) {
  int* const number = dynamic_shared<int>();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int round = 0; round < rounds; ++round) {
    if (warp == 0) {
      if (round > 0) named_barrier_sync(2, 64);
      number[lane] = round + lane;
      named_barrier_arrive(1, 64);
    } else {
      named_barrier_sync(1, 64);
      int sum = 0;
      for (int i = 0; i < 32; ++i) sum += number[i];
      out[round * 32 + lane] = sum;
      if (round + 1 < rounds) named_barrier_arrive(2, 64);
    }
  }
}

}  // namespace

void multiply_images(cudaStream_t stream, float* c, OperandImage a, OperandImage b, Major b_major, int n) {
  const auto kernel =
      n == 64 ? b_major == Major::k ? multiply_images_kernel<Major::k, 8> : multiply_images_kernel<Major::mn, 8>
      : b_major == Major::k ? multiply_images_kernel<Major::k, 16>
                            : multiply_images_kernel<Major::mn, 16>;
  launch(kernel, {1, 128, 1024 + 2 * image_room, stream}, c, a, b);
}

void copy_box(cudaStream_t stream, unsigned char* raw, const CUtensorMap& in, const CUtensorMap* out, int rank,
              BoxPosition from, BoxPosition to, int bytes) {
  const auto kernel = rank == 2 ? copy_box_kernel<2> : rank == 3 ? copy_box_kernel<3> : copy_box_kernel<4>;
  launch(kernel, {1, 32, 2048 + static_cast<std::size_t>(bytes) + 8, stream}, raw, in, out == nullptr ? in : *out,
         out != nullptr, from, to, bytes);
}

void copy_bytes(cudaStream_t stream, unsigned char* out, const unsigned char* in, int bytes) {
  launch(copy_bytes_kernel, {1, 32, 16 + static_cast<std::size_t>(bytes), stream}, out, in, bytes);
}

void take_turns(cudaStream_t stream, int* out, int rounds) {
  launch(take_turns_kernel, {1, 64, 128, stream}, out, rounds);
}

}  // namespace vqlm::cuda
