// What the kernels of the VQ head's members share: the problem, the schedule of tiles, and how rows of h and members'
// vectors come into shared memory. A member's vector is put together there from its sub-codes, u_w = [U[g, q_g(w), :]
// for g in 0..G), and exists nowhere else; or it is a row of a matrix (V, d) in member order, where members have vectors of
// their own.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "core/cuda/context.h"
#include "core/cuda/device_utils.h"
#include "core/cuda/tensor_core.h"
#include "core/ops/code_map_view.h"

namespace vqlm::cuda::members {

using bf16 = __nv_bfloat16;

constexpr int tile_rows = 64;

/// Where members' vectors come from: put together from sub-codes, or rows of their own.
enum class Vectors { coded, own };

/// At most tile_rows rows of one cluster, in sorted order: what one block works on.
struct Tile {
  std::int32_t first_row;     // in order
  std::int32_t rows;          // 1 .. tile_rows
  std::int32_t first_member;  // in member order
  std::int32_t members;       // of the cluster, or of the part's share of it
  std::int32_t cluster;
  std::int32_t wave;    // tiles of one wave have room in the store of scores together
  std::int64_t offset;  // of the tile's scores (members, padded_rows) in the store

  /// A multiple of 8, so that every member's scores of the tile begin at 16 bytes.
  __host__ __device__ __forceinline__ int padded_rows() const { return (rows + 7) / 8 * 8; }
};

/// One call's operands, sizes and workspace; passed to kernels by value.
struct Problem {
  const bf16* h;                                                   // (N, d)
  const bf16* codebook;                                            // (G, Q, width), or (V, d): own vectors
  const float* bias;                                               // (V)
  const std::int32_t *target, *order, *row_begin;                  // (N), (N), (K + 1)
  const std::int32_t *member_begin, *members, *position_of_token;  // (K + 1), (M), (V)
  const std::uint8_t* codes;                                       // (V, G) in member order, or null
  float* nll;                                                      // (N); absent of a part of the members:
  float* statistics;                                               // (N, 3) in its place, or
  const float* lse;                                                // (N), from which gradients are made
  bf16* dh;                                                        // (N, d), or null: no gradients
  float *dcodebook, *dbias;
  float scale;
  int d, groups, codes_per_group, width, clusters;  // own vectors: one group without codes
  bool aligned;  // every 8 elements of a row of h or dh, of a piece of the codebook and of its gradient lie at 16 bytes

  // Workspace.
  Tile* tiles;               // at most max_tiles
  std::int32_t* tile_begin;  // (K + 1): cluster k's tiles; the last entry counts all
  std::int64_t max_tiles;
  std::int64_t wave_scores;   // a tile is of the wave in which its first score falls, this many scores to a wave
  float* scores;              // s_w, (members, padded_rows) for each tile of the wave
  bf16* ds;                   // scale * (softmax - [target]), the same layout
  std::uint32_t* code_order;  // for each cluster and group its members in the order of their codes, see ordered_member
  float* partials;            // (parts, G, Q, width): sums that make dmember_codebook
  int parts;

  /// A whole cluster's only member has probability 1, no loss and no gradient.
  __host__ __device__ __forceinline__ int fewest_members() const { return nll != nullptr ? 2 : 1; }
  Vectors vectors() const { return codes != nullptr ? Vectors::coded : Vectors::own; }
  /// The tile with this index where the wave has it, else a tile without rows.
  __device__ __forceinline__ Tile tile(std::int64_t index, int wave) const {
    Tile none{};
    if (index >= tile_begin[clusters]) return none;
    const Tile found = tiles[index];
    return found.wave == wave ? found : none;
  }
};

/// Fills tiles and tile_begin: clusters in order, none for clusters without rows or with too few members.
void plan_tiles(const Context& context, const Problem& problem);
/// nll += lse - s_y of every row, or statistics are written; fills ds where there are gradients. scores -> softmax, for one
/// wave.
void score_tiles(const Context& context, const Problem& problem, int wave);
/// dh and dbias accumulate the gradients of one wave.
void tile_gradients(const Context& context, const Problem& problem, int wave);
/// Fills code_order; the tiles are planned.
void order_by_code(const Context& context, const Problem& problem);
/// The partials take up one wave; with the last one, dcodebook accumulates them.
void codebook_gradient(const Context& context, const Problem& problem, int wave, bool last);
/// The vectors' own gradient rows accumulate one wave.
void own_vector_gradient(const Context& context, const Problem& problem, int wave);
/// Problem::parts that fill the device.
int codebook_parts(const Context& context, int groups, int width);
/// The whole op where members have no vectors (G = 0), s_w = b_w.
void bias_entropy(const Context& context, const Problem& problem);

/// What code_order holds: a member's place in its cluster, below 2^23, with its code above. Behind the last of each list
/// there are one to four no_member, so that lists begin at 16 bytes: of a code that nobody has, at a place that is there.
constexpr std::int64_t most_ordered_members = std::int64_t{1} << 23;
constexpr std::uint32_t no_member = std::uint32_t{256} << 23;
__device__ __forceinline__ std::uint32_t ordered_member(int code, int place) {
  return static_cast<std::uint32_t>(code) << 23 | static_cast<std::uint32_t>(place);
}
__device__ __forceinline__ int code_of(std::uint32_t member) {
  return static_cast<int>(member >> 23);
}
__device__ __forceinline__ int place_of(std::uint32_t member) {
  return static_cast<int>(member & 0x7fffffu);
}

/// From a cluster's list for one group to that for the next.
__host__ __device__ __forceinline__ int code_order_pitch(int members) {
  return members / 4 * 4 + 4;
}
/// Where cluster k's lists begin. Those of the next one, m members further, begin at least a pitch further, since m rounded
/// down to 4 and added to a multiple of 4 stays below the sum rounded up.
__host__ __device__ __forceinline__ std::int64_t code_order_begin(const Problem& problem, int k,
                                                                  std::int64_t first_member) {
  return (ceil_div<std::int64_t>(first_member, 4) + k) * 4 * problem.groups;
}

/// Element offset of chunk c (8 elements) of row r in a tile of `chunks` chunks a row, chunks a multiple of 8. The chunk's
/// low bits are mixed with the row's so that the 8 rows which ldmatrix reads at one chunk lie in different banks.
template <int chunks>
__device__ __forceinline__ int chunk_offset(int r, int c) {
  static_assert(chunks % 8 == 0);
  return (r * chunks + (c ^ (r % 8))) * 8;
}

/// target[0..8) = source[i] where i < count, else 0; asynchronous where `aligned`. source: 16-byte aligned if so.
template <bool aligned>
__device__ __forceinline__ void copy_chunk(bf16* target, const bf16* source, int count) {
  if constexpr (aligned) {
    cp_async_16(target, source, count > 0);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) target[i] = i < count ? source[i] : __float2bfloat16_rn(0.0f);
  }
}

/// copy_vector_chunks where vectors are put together; codes: of the first member. All codes are on their way before the
/// first copy needs one, and what depends on k only is computed once.
template <bool aligned, int chunks, int step, int count>
__device__ __forceinline__ void gather_chunks(bf16* tile, const Problem& problem, const std::uint8_t* codes,
                                              int members, int first, int chunk, int k) {
  const auto piece = [&problem](int g, int code) {
    return problem.codebook + (static_cast<std::int64_t>(g) * problem.codes_per_group + code) * problem.width;
  };
  if constexpr (aligned) {
    const bool inside = k < problem.d;
    const int g = inside ? k / problem.width : 0;
    const bf16* const of_code_0 = piece(g, 0) + (inside ? k - g * problem.width : 0);
    int code[count];  // or -1
#pragma unroll
    for (int i = 0; i < count; ++i) {
      code[i] = inside && i * step < members ? codes[i * step * problem.groups + g] : -1;
    }
#pragma unroll
    for (int i = 0; i < count; ++i) {
      cp_async_16(tile + chunk_offset<chunks>(first + i * step, chunk), of_code_0 + max(code[i], 0) * problem.width,
                  code[i] >= 0);
    }
  } else {
    for (int i = 0; i < count; ++i) {
      bf16* const target = tile + chunk_offset<chunks>(first + i * step, chunk);
      for (int j = 0; j < 8; ++j) {
        const int g = (k + j) / problem.width;
        target[j] = i * step < members && k + j < problem.d
                        ? piece(g, codes[i * step * problem.groups + g])[k + j - g * problem.width]
                        : __float2bfloat16_rn(0.0f);
      }
    }
  }
}

/// Elements k .. k + 7 of the vectors of every step-th member, `count` of them, to chunk `chunk` of rows first,
/// first + step, .. of a tile; zeros from d on and from `members` members on. member: the first one's place in member
/// order. Asynchronous where `aligned` (Problem::aligned).
template <Vectors vectors, bool aligned, int chunks, int step, int count>
__device__ __forceinline__ void copy_vector_chunks(bf16* tile, const Problem& problem, std::int64_t member, int members,
                                                   int first, int chunk, int k) {
  if constexpr (vectors == Vectors::coded) {
    gather_chunks<aligned, chunks, step, count>(tile, problem, problem.codes + member * problem.groups, members, first,
                                                chunk, k);
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const bool valid = k < problem.d && i * step < members;
      copy_chunk<aligned>(tile + chunk_offset<chunks>(first + i * step, chunk),
                          problem.codebook + (valid ? (member + i * step) * problem.d + k : 0),
                          valid ? problem.d - k : 0);
    }
  }
}

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

/// The largest number of members that a cluster can have, as far as the host knows.
inline std::int64_t most_members(const CodeMapView& map) {
  return map.largest_cluster > 0 ? map.largest_cluster : map.members.numel();
}

/// The one of a kernel's four instances that the problem asks for.
template <class Kernel>
Kernel* instance_for(const Problem& problem, Kernel* coded_aligned, Kernel* coded, Kernel* own_aligned, Kernel* own) {
  if (problem.vectors() == Vectors::coded) return problem.aligned ? coded_aligned : coded;
  return problem.aligned ? own_aligned : own;
}

}  // namespace vqlm::cuda::members
