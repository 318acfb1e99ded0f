// A VQ head's clusters scored by their code plus the mean of their members' vectors, and the gradient back. A cluster is
// one thread's, and its members are summed in their order. Bytes: the members' vectors once (backward: their gradients
// read and written); K d numbers besides.
#include "core/ops/member_means.h"

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/ops/member_part.h"

namespace vqlm::cpu {
template <>
void run(const AddMemberMeans& op) {
  const std::int64_t clusters = op.out.extent(0), width = op.out.extent(1);
  float* const to = op.out.f32();
  const float *const code = op.codebook.f32(), *const vectors = op.members.f32();
  const std::int32_t* const begin = op.map.member_begin.i32();
  parallel_blocks(clusters, 1, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t k = first; k < end; ++k) {
      float* const row = to + k * width;
      for (std::int64_t j = 0; j < width; ++j) row[j] = 0;
      for (std::int64_t i = begin[k]; i < begin[k + 1]; ++i) row_add(row, vectors + i * width, 1.0f, width);
      row_scale(row, 1.0f / static_cast<float>(begin[k + 1] - begin[k]), width);
      row_add(row, code + k * width, 1.0f, width);
    }
  });
}

template <>
void run(const AddMemberMeansBackward& op) {
  const std::int64_t clusters = op.dout.extent(0), width = op.dout.extent(1);
  float *const code = op.dcodebook.f32(), *const vectors = op.dmembers.f32();
  const float* const from = op.dout.f32();
  const std::int32_t *const begin = op.map.member_begin.i32(), *const sizes = op.map.cluster_sizes.i32();
  parallel_blocks(clusters, 1, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t k = first; k < end; ++k) {
      const float* const row = from + k * width;
      const float share = 1.0f / static_cast<float>(sizes != nullptr ? sizes[k] : begin[k + 1] - begin[k]);
      for (std::int64_t i = begin[k]; i < begin[k + 1]; ++i) row_add(vectors + i * width, row, share, width);
      if (code != nullptr) row_add(code + k * width, row, 1.0f, width);
    }
  });
}

template <>
void run(const MemberMeansPart& op) {
  const std::int64_t clusters = op.means.extent(0), width = op.means.extent(1);
  float* const to = op.means.f32();
  const float* const vectors = op.vectors.f32();
  const std::int32_t *const begin = op.map.member_begin.i32(), *const sizes = op.map.cluster_sizes.i32();
  parallel_blocks(clusters, 1, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t k = first; k < end; ++k) {
      float* const row = to + k * width;
      for (std::int64_t j = 0; j < width; ++j) row[j] = 0;
      for (std::int64_t i = begin[k]; i < begin[k + 1]; ++i) row_add(row, vectors + i * width, 1.0f, width);
      row_scale(row, 1.0f / static_cast<float>(sizes[k]), width);
    }
  });
}

}  // namespace vqlm::cpu
