// As planted_faults.cu, for what Hopper adds: a producer brings tiles of b by bulk copies in two stages, a warpgroup stages
// a by stores, multiplies, and sends the result out by a bulk copy; one fault each in barriers, fences, waits, descriptors.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

#include "core/cuda/launch.h"
#include "core/cuda/tensor_core_sm90.h"
#include "core/cuda/tensor_maps.h"
#include "tests/simt/planted_main.h"

namespace vqlm::cuda {
namespace {

enum class Fault {
  none,
  missing_full_wait,
  missing_empty_wait,
  early_release,
  missing_wgmma_fence,
  sum_read_early,
  sum_written_early,
  register_written_early,
  operand_changed_early,
  missing_proxy_fence,
  missing_barrier_after_fence,
  missing_commit,
  arrival_missing,
  double_arrival,
  too_few_bytes,
  too_many_bytes,
  wrong_swizzle,
  wrong_stride,
  unaligned_atom,
  missing_init_fence,
  missing_init_barrier,
  registers_exceeded,
  divergent_warpgroup,
  different_descriptors,
  named_counts_differ,
  named_not_reached,
  thread_leaves,
  store_not_waited,
  store_changed_early,
  load_left_behind,
  load_before_wait,
  store_before_wait,
};

constexpr const char* names[] = {"none",
                                 "missing_full_wait",
                                 "missing_empty_wait",
                                 "early_release",
                                 "missing_wgmma_fence",
                                 "sum_read_early",
                                 "sum_written_early",
                                 "register_written_early",
                                 "operand_changed_early",
                                 "missing_proxy_fence",
                                 "missing_barrier_after_fence",
                                 "missing_commit",
                                 "arrival_missing",
                                 "double_arrival",
                                 "too_few_bytes",
                                 "too_many_bytes",
                                 "wrong_swizzle",
                                 "wrong_stride",
                                 "unaligned_atom",
                                 "missing_init_fence",
                                 "missing_init_barrier",
                                 "registers_exceeded",
                                 "divergent_warpgroup",
                                 "different_descriptors",
                                 "named_counts_differ",
                                 "named_not_reached",
                                 "thread_leaves",
                                 "store_not_waited",
                                 "store_changed_early",
                                 "load_left_behind",
                                 "load_before_wait",
                                 "store_before_wait"};

constexpr int edge = 64, tiles = 4, stages = 2, rows_out = 60, threads = 384;
constexpr int tile_elements = edge * edge;
constexpr unsigned tile_bytes = tile_elements * 2;
using Bf16 = __nv_bfloat16;

struct Shared {
  Bf16 *a, *b;  // b: two stages
  Mbarrier *full, *empty;
};

__device__ void produce(const Shared& shared, const CUtensorMap& b, Fault fault) {
  for (int i = 0; i < tiles; ++i) {
    Mbarrier* const full = shared.full + i % stages;
    if (fault != Fault::missing_empty_wait) mbarrier_wait(shared.empty + i % stages, (i / stages + 1) % 2);
    const unsigned wrong = fault == Fault::too_few_bytes ? -64u : fault == Fault::too_many_bytes ? 64u : 0u;
    mbarrier_arrive_expect_tx(full, tile_bytes + wrong);
    if (fault == Fault::double_arrival) mbarrier_arrive(full);
    bulk_load(shared.b + i % stages * tile_elements, b, full, {i * edge, 0, 0});
  }
  if (fault == Fault::load_left_behind) {
    mbarrier_wait(shared.empty, 1);
    mbarrier_arrive_expect_tx(shared.full, tile_bytes);
    bulk_load(shared.b, b, shared.full, {0, 0, 0});
  }
}

/// Rows of a tile of a, swizzled as bulk copies do it.
__device__ void stage_a(Bf16* tile, const Bf16* a, int i) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int chunk = thread; chunk < edge * 8; chunk += 128) {
    const int row = chunk / 8, at = chunk % 8;
    for (int e = 0; e < 8; ++e)
      tile[row * edge + (at ^ row % 8) * 8 + e] = a[row * edge * tiles + i * edge + at * 8 + e];
  }
}

__device__ void consume(const Shared& shared, const CUtensorMap& out, const Bf16* a, Fault fault) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const unsigned stride = fault == Fault::wrong_stride ? 512 : 1024;
  const auto describe = [&](const Bf16* at) {
    return matrix_descriptor(shared_address(at), 16, stride,
                             fault == Fault::wrong_swizzle ? Swizzle::none : Swizzle::bytes_128);
  };
  float c[8][4] = {}, early = 0;
  unsigned registers[4][4];
  for (int i = 0; i < tiles; ++i) {
    const int stage = i % stages;
    stage_a(shared.a, a, i);
    if (fault != Fault::missing_proxy_fence) fence_proxy_async();
    const int barrier_threads = fault == Fault::named_counts_differ && warp == 2 ? 64 : 128;
    if (fault == Fault::named_not_reached && warp == 3) return;
    if (fault != Fault::missing_barrier_after_fence) named_barrier_sync(1, barrier_threads);
    for (int k = 0; k < 4; ++k) {
      for (int r = 0; r < 4; ++r) {  // the same rows as operand a in registers
        const int row = warp * 16 + lane / 4 + r % 2 * 8, column = k * 16 + lane % 4 * 2 + r / 2 * 8;
        std::memcpy(&registers[k][r], a + row * edge * tiles + i * edge + column, 4);
      }
    }
    if (fault != Fault::missing_full_wait) mbarrier_wait(shared.full + stage, i / stages % 2);
    if (fault != Fault::missing_wgmma_fence) wgmma_fence(c);
    if (fault == Fault::thread_leaves && thread == 77) return;
    for (int k = 0; k < 4; ++k) {
      MatrixDescriptor b = describe(shared.b + stage * tile_elements) + static_cast<unsigned>(2 * k);
      if (fault == Fault::different_descriptors && thread == 100) b += 2;
      if (i % 2 == 0) {
        wgmma<Major::k>(c, describe(shared.a) + static_cast<unsigned>(2 * k), b, Sums::add);
      } else {
        wgmma<Major::k>(c, registers[k], b, Sums::add);
      }
    }
    if (fault == Fault::divergent_warpgroup && warp == 1) wgmma_fence(c);
    if (fault != Fault::missing_commit) wgmma_commit();
    if (fault == Fault::sum_read_early) early += c[0][0];
    if (fault == Fault::sum_written_early) c[3][1] = 0;
    if (fault == Fault::register_written_early) registers[1][2] = 0;
    if (fault == Fault::operand_changed_early && thread == 5) shared.a[0] = Bf16(9.0f);
    if (fault == Fault::early_release && lane == 0) mbarrier_arrive(shared.empty + stage);
    wgmma_wait<0>(c);
    if (fault != Fault::early_release && lane == 0) mbarrier_arrive(shared.empty + stage);
    named_barrier_sync(2, 128);
  }
  Bf16* const rows = shared.a + warp * 16 * edge;
  for (int n = 0; n < 8; ++n) {
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + e / 2 * 8;
      rows[row * edge + (n ^ row % 8) * 8 + lane % 4 * 2 + e % 2] = Bf16(c[n][e] + (early != 0 ? early - c[0][0] : 0));
    }
  }
  fence_proxy_async();
  __syncwarp();
  if (lane != 0) return;
  bulk_store(out, rows, {0, warp * 16, 0});
  bulk_store_commit();
  if (fault == Fault::store_changed_early) rows[0] = Bf16(7.0f);
  if (fault != Fault::store_not_waited) bulk_store_wait<0>();
}

__global__ void pipeline_kernel(GridDependency dependency, const __grid_constant__ CUtensorMap b,
                                const __grid_constant__ CUtensorMap out, const Bf16* a, Fault fault) {
  Shared shared;
  shared.a = fault == Fault::unaligned_atom ? dynamic_shared<Bf16>() : dynamic_shared_1024<Bf16>();
  shared.b = shared.a + tile_elements;
  shared.full = reinterpret_cast<Mbarrier*>(shared.b + stages * tile_elements);
  shared.empty = shared.full + stages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      mbarrier_init(shared.full + i, 1);
      mbarrier_init(shared.empty + i, fault == Fault::arrival_missing ? 5 : 4);
    }
    if (fault != Fault::missing_init_fence) mbarrier_init_fence();
  }
  // Without the barrier threads of the first warp alone may pass; the second would find what is not there or not for it.
  if (fault != Fault::missing_init_barrier) __syncthreads();
  const bool late = (fault == Fault::load_before_wait && threadIdx.x == 128) ||
                    (fault == Fault::store_before_wait && threadIdx.x == 32);
  if (!late) dependency.wait();
  // 168 registers a thread at the start, of which the third warpgroup keeps its share.
  if (threadIdx.x < 128) {
    set_registers_up<248>();
    consume(shared, out, a, fault);
  } else if (threadIdx.x < 256) {
    if (fault != Fault::registers_exceeded) set_registers_down<64>();
    if (threadIdx.x == 128) produce(shared, b, fault);
  }
}

int run(Fault fault) {
  cudaStream_t stream = nullptr;
  Bf16 *a = nullptr, *b = nullptr, *out = nullptr;
  constexpr std::size_t count = edge * edge * tiles;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 2;
  if (cudaMalloc(&a, count * 2) != cudaSuccess || cudaMalloc(&b, count * 2) != cudaSuccess ||
      cudaMalloc(&out, rows_out * edge * 2) != cudaSuccess) {
    return 2;
  }
  std::vector<Bf16> x(count), y(count), result(rows_out * edge);
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = Bf16(static_cast<float>(i * 7 % 11 % 3) - 1);
    y[i] = Bf16(static_cast<float>(i * 5 % 13 % 3) - 1);
  }
  if (cudaMemcpy(a, x.data(), count * 2, cudaMemcpyHostToDevice) != cudaSuccess) return 2;
  if (cudaMemcpy(b, y.data(), count * 2, cudaMemcpyHostToDevice) != cudaSuccess) return 2;
  const CUtensorMap b_map = tensor_map_bf16(b, edge * tiles, edge, 1, edge * tiles, count, edge);
  const CUtensorMap out_map = tensor_map_bf16(out, edge, rows_out, 1, edge, rows_out * edge, 16);
  launch(pipeline_kernel, {2, threads, 1024 + 3 * tile_bytes + 64, stream}, b_map, out_map, a, fault);
  if (cudaStreamSynchronize(stream) != cudaSuccess) return 2;
  if (cudaMemcpy(result.data(), out, rows_out * edge * 2, cudaMemcpyDeviceToHost) != cudaSuccess) return 2;
  static_cast<void>(cudaFree(a));
  static_cast<void>(cudaFree(b));
  static_cast<void>(cudaFree(out));
  static_cast<void>(cudaStreamDestroy(stream));
  for (std::size_t row = 0; row < rows_out; ++row) {
    for (std::size_t column = 0; column < edge; ++column) {
      float sum = 0;  // at most 256 in size: bf16 holds it
      for (std::size_t k = 0; k < edge * tiles; ++k) {
        sum += static_cast<float>(x[row * edge * tiles + k]) * static_cast<float>(y[column * edge * tiles + k]);
      }
      if (static_cast<float>(result[row * edge + column]) == sum) continue;
      std::printf("wrong result\n");
      return 3;
    }
  }
  std::printf("right result\n");
  return 0;
}

}  // namespace
}  // namespace vqlm::cuda

int main(int argc, char** argv) {
  return simt::run_planted(argc, argv, vqlm::cuda::names,
                           [](std::size_t i) { return vqlm::cuda::run(static_cast<vqlm::cuda::Fault>(i)); });
}
