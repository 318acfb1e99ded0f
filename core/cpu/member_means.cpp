// A VQ head's clusters scored by their code plus the mean of their members' vectors, and the gradient back. A cluster is
// one thread's, and its members are summed in their order. Bytes: the members' vectors once (backward: their gradients
// read and written); K d numbers besides.
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {
namespace {

/// `members`: the (V, d) side, `codes`: the (K, d) side, of either direction.
void check(const Tensor& codes, const Tensor& members, const CodeMapView& map) {
  VQLM_ASSERT(codes.rank() == 2 && members.rank() == 2 && codes.extent(1) == members.extent(1));
  VQLM_ASSERT(map.member_begin.numel() == codes.extent(0) + 1 && map.members.numel() == members.extent(0));
}

}  // namespace

void add_member_means(Tensor out, Tensor codebook, Tensor members, const CodeMapView& map) {
  check(out, members, map);
  VQLM_ASSERT(codebook.shape() == out.shape());
  const std::int64_t clusters = out.extent(0), width = out.extent(1);
  float* const to = out.f32();
  const float *const code = codebook.f32(), *const vectors = members.f32();
  const std::int32_t* const begin = map.member_begin.i32();
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

void add_member_means_backward(Tensor dcodebook, Tensor dmembers, Tensor dout, const CodeMapView& map) {
  check(dout, dmembers, map);
  VQLM_ASSERT(dcodebook.shape() == dout.shape());
  const std::int64_t clusters = dout.extent(0), width = dout.extent(1);
  float *const code = dcodebook.f32(), *const vectors = dmembers.f32();
  const float* const from = dout.f32();
  const std::int32_t* const begin = map.member_begin.i32();
  parallel_blocks(clusters, 1, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t k = first; k < end; ++k) {
      const float* const row = from + k * width;
      const float share = 1.0f / static_cast<float>(begin[k + 1] - begin[k]);
      for (std::int64_t i = begin[k]; i < begin[k + 1]; ++i) row_add(vectors + i * width, row, share, width);
      row_add(code + k * width, row, 1.0f, width);
    }
  });
}

}  // namespace vqlm::cpu
