// The VQ head's second factor: cross entropy among the members of the target's cluster. Rows arrive sorted by cluster; a
// tile is up to 64 rows of one cluster, and all work on it is products with its members' vectors, put together in shared
// memory. Nothing of size V d or N V is stored, nothing is asked of the device by the host, and there are no atomics: the
// result is the same in every run.
//
// What is stored is the scores of each row's own members, N m numbers (m: members of the row's cluster, averaged over
// rows; 16,384 * 250 = 4 M), in f32, and their gradient ds in bf16. Their number depends on the batch, so it is bounded:
// tiles are done in waves whose scores fit, as many waves as the largest cluster could make necessary; a wave without
// tiles costs its launches. Scores are rounded nowhere before the softmax; ds is rounded to bf16 once, as the gradient of
// a dense head's logits is.
//
// Kernels: plan (member_tiles.cu), scores and softmax (member_scores.cu), dh and dbias (member_gradients.cu), dU
// (member_code_order.cu, member_codebook_gradient.cu), which state their operations and bytes. Together, forward and
// backward, at V 128,000, d 4,096, N 16,384, K 512, Q 256, G 32: 0.1 TFLOP, 3.7 GB from the second-level cache, 0.4 GB of
// memory: about 1 ms on an H200 by these counts, not measured. A dense head does 52 TFLOP there.
//
// Where members have vectors of their own, (V, d) in member order, tiles read them in place, and dU is theirs
// (member_rows_gradient.cu): the same operations, and 12 V d bytes of memory for vectors and gradient, 6.3 GB there.
#include <algorithm>

#include "core/cuda/member_entropy.h"
#include "core/cuda/member_tiles.h"
#include "core/cuda/ops.h"
#include "core/ops/member_entropy.h"

namespace vqlm::cuda {
namespace members {
namespace {

template <class T>
T* activations(const Tensor& x) {
  VQLM_ASSERT(!x || x.dtype() == DType::bf16);
  return static_cast<T*>(x.data());
}

/// Carves a block, or counts the bytes of one (null).
class Cutter {
 public:
  explicit Cutter(void* block) : block_(static_cast<std::byte*>(block)) {}
  template <class T>
  void cut(T*& pointer, std::int64_t count) {
    pointer = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + bytes_);
    bytes_ += ceil_div(static_cast<std::size_t>(count) * sizeof(T), std::size_t{256}) * 256;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* block_;
  std::size_t bytes_ = 0;
};

std::size_t carve(Problem& problem, std::int64_t wave_room, std::int64_t members, void* block) {
  Cutter cutter(block);
  const bool gradients = problem.dh != nullptr, coded = problem.vectors() == Vectors::coded;
  cutter.cut(problem.tiles, problem.max_tiles);
  cutter.cut(problem.tile_begin, problem.clusters + 1);
  cutter.cut(problem.scores, wave_room);
  cutter.cut(problem.ds, gradients ? wave_room : 0);
  cutter.cut(problem.code_order, gradients && coded ? code_order_begin(problem, problem.clusters, members) + 4 : 0);
  cutter.cut(problem.partials, gradients ? std::int64_t{problem.parts} * problem.codes_per_group * problem.d : 0);
  return cutter.bytes();
}

}  // namespace

void vector_entropy(const Context& context, Problem& problem, std::int64_t rows, std::int64_t members,
                    std::int64_t largest, std::int64_t wave_scores) {
  const std::int64_t with_rows = std::min<std::int64_t>(rows, problem.clusters);
  problem.max_tiles = ceil_div(rows, std::int64_t{tile_rows}) + with_rows;
  const bool coded = problem.vectors() == Vectors::coded;
  problem.parts = coded ? codebook_parts(context, problem.groups, problem.width) : 0;
  const std::int64_t all_scores = largest * (rows + 7 * with_rows);  // rows of a tile are padded to 8
  const std::int64_t largest_tile = largest * tile_rows;
  std::int64_t wave_room = all_scores;
  problem.wave_scores = std::max<std::int64_t>(all_scores, 1);
  if (all_scores > wave_scores) {
    wave_room = std::max(wave_scores, 2 * largest_tile);
    problem.wave_scores = wave_room - largest_tile;  // a tile begins below and may reach beyond by its own size
  }
  carve(problem, wave_room, members, context.workspace->get(carve(problem, wave_room, members, nullptr)));

  plan_tiles(context, problem);
  if (coded && problem.dh != nullptr) order_by_code(context, problem);
  const auto waves = static_cast<int>(ceil_div(all_scores, problem.wave_scores));
  for (int wave = 0; wave < waves; ++wave) {
    score_tiles(context, problem, wave);
    if (problem.dh == nullptr) continue;
    tile_gradients(context, problem, wave);
    if (coded) {
      codebook_gradient(context, problem, wave, wave + 1 == waves);
    } else {
      own_vector_gradient(context, problem, wave);
    }
  }
}

void member_entropy(const Context& context, const MemberEntropy& op, std::int64_t wave_scores) {
  const MemberGradients& gradients = op.gradients;
  const CodeMapView& map = op.map;
  const std::int64_t rows = op.h.extent(0), clusters = op.row_begin.numel() - 1;
  if (rows == 0) return;
  Problem problem{};
  problem.h = activations<const bf16>(op.h);
  problem.codebook = activations<const bf16>(op.member_codebook);
  problem.bias = op.token_bias.f32();
  problem.target = op.targets.i32();
  problem.order = op.order.i32();
  problem.row_begin = op.row_begin.i32();
  problem.member_begin = map.member_begin.i32();
  problem.members = map.members.i32();
  problem.position_of_token = map.position_of_token.i32();
  problem.nll = op.nll.f32();
  problem.dh = activations<bf16>(gradients.dh);
  problem.dcodebook = gradients.dmember_codebook.f32();
  problem.dbias = gradients.dtoken_bias.f32();
  problem.scale = gradients.scale;
  problem.d = static_cast<int>(op.h.extent(1));
  problem.clusters = static_cast<int>(clusters);
  if (!op.member_codebook) {
    bias_entropy(context, problem);
    return;
  }
  if (are_own_vectors(op.member_codebook)) {
    problem.groups = 1;
    problem.width = problem.d;
  } else {
    VQLM_ASSERT(map.members.numel() <= most_ordered_members);
    problem.codes = map.member_codes.as<std::uint8_t>();
    problem.groups = static_cast<int>(op.member_codebook.extent(0));
    problem.codes_per_group = static_cast<int>(op.member_codebook.extent(1));
    problem.width = static_cast<int>(op.member_codebook.extent(2));
  }
  problem.aligned = problem.width % 8 == 0 && is_aligned(problem.h) && is_aligned(problem.dh) &&
                    is_aligned(problem.codebook) && is_aligned(problem.dcodebook);
  vector_entropy(context, problem, rows, map.members.numel(), most_members(map), wave_scores);
}

}  // namespace members

template <>
void run(const Context& context, const MemberEntropy& op) {
  members::member_entropy(context, op, members::most_wave_scores);
}

}  // namespace vqlm::cuda
