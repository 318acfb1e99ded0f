// The ops of PlanningBackend: what each reads and writes, and the operations of products.
#include "train/engine/planning_backend.h"

#include <algorithm>

namespace vqlm {
namespace {

/// Of the scores and of the sum over values, where half of the T x T scores exist.
double attention_forward_flops(const AttentionShape& s) {
  return 2.0 * static_cast<double>(s.batch * s.seq_len * s.seq_len) * s.heads * s.head_dim;
}

/// Row t meets past + t + 1 keys.
double attention_cached_flops(const AttentionShape& s, std::int64_t past) {
  const auto keys = static_cast<double>(s.seq_len * (2 * past + s.seq_len + 1)) / 2;
  return 4.0 * keys * static_cast<double>(s.batch) * s.heads * s.head_dim;
}

/// What members' vectors are put together by, where they are.
Tensor codes_of(const Tensor& member_codebook, const CodeMapView& map) {
  return member_codebook && member_codebook.rank() == 3 ? map.member_codes : Tensor{};
}

}  // namespace

void PlanningBackend::matmul(Tensor c, Tensor a, Tensor b, Transpose ta, Transpose tb,
                             Accumulate accumulate) {
  const int a_inner = ta == Transpose::yes ? 0 : 1;
  const int b_inner = tb == Transpose::yes ? 1 : 0;
  VQLM_ASSERT(a.extent(a_inner) == b.extent(b_inner));
  VQLM_ASSERT(c.extent(0) == a.extent(1 - a_inner) && c.extent(1) == b.extent(1 - b_inner));
  VQLM_ASSERT(a.dtype() == b.dtype() && (a.dtype() == activation_ || a.dtype() == DType::f32));
  VQLM_ASSERT(c.dtype() == activation_ || c.dtype() == DType::f32);
  const double flops = 2.0 * static_cast<double>(c.numel()) * static_cast<double>(a.extent(a_inner));
  count("matmul", flops, {a, b, accumulate == Accumulate::yes ? c : Tensor{}}, {c});
}

void PlanningBackend::add_scaled(Tensor y, Tensor x, float /*scale*/) {
  VQLM_ASSERT(y.numel() == x.numel());
  expect(DType::f32, {y, x});
  count("add_scaled", 0, {y, x}, {y});
}

void PlanningBackend::add_column_sums(Tensor out, Tensor x) {
  expect(DType::f32, {out});
  expect(activation_, {x});
  count("add_column_sums", 0, {out, x}, {out});
}

void PlanningBackend::swap_axes(Tensor dst, Tensor src) {
  VQLM_ASSERT(dst.numel() == src.numel());
  expect(activation_, {dst, src});
  count("swap_axes", 0, {src}, {dst});
}

void PlanningBackend::swiglu_forward(Tensor y, Tensor gate_up) {
  expect(activation_, {y, gate_up});
  count("swiglu_forward", 0, {gate_up}, {y});
}

void PlanningBackend::swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up) {
  expect(activation_, {dgate_up, dy, gate_up});
  count("swiglu_backward", 0, {dy, gate_up}, {dgate_up});
}

void PlanningBackend::rmsnorm_forward(Tensor y, Tensor rstd, Tensor sum, Tensor x, Tensor branch, Tensor gain,
                                      float /*eps*/) {
  expect(activation_, {y, sum, x, branch});
  expect(DType::f32, {rstd, gain});
  count("rmsnorm_forward", 0, {x, branch, gain}, {y, rstd, sum});
}

void PlanningBackend::rmsnorm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor x, Tensor gain, Tensor rstd,
                                       Accumulate accumulate_dx) {
  expect(activation_, {dx, dy, x});
  expect(DType::f32, {dgain, gain, rstd});
  count("rmsnorm_backward", 0, {dy, x, gain, rstd, dgain, accumulate_dx == Accumulate::yes ? dx : Tensor{}},
        {dx, dgain});
}

void PlanningBackend::rope_forward(Tensor qkv, const AttentionShape& shape, const RopePositions& positions) {
  expect(activation_, {qkv});
  expect(DType::f64, {positions.frequencies});
  // The value heads are not touched.
  const double rotated =
      static_cast<double>(qkv.bytes()) * (shape.heads + shape.kv_heads) / (shape.heads + 2 * shape.kv_heads);
  machine_.add_op("rope_forward", 0, rotated, rotated);
}

void PlanningBackend::rope_backward(Tensor dqkv, const AttentionShape& shape,
                                    const RopePositions& positions) {
  expect(activation_, {dqkv});
  expect(DType::f64, {positions.frequencies});
  const double rotated =
      static_cast<double>(dqkv.bytes()) * (shape.heads + shape.kv_heads) / (shape.heads + 2 * shape.kv_heads);
  machine_.add_op("rope_backward", 0, rotated, rotated);
}

void PlanningBackend::attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape) {
  expect(activation_, {out, qkv});
  expect(DType::f32, {lse});
  count("attention_forward", attention_forward_flops(shape), {qkv}, {out, lse});
}

void PlanningBackend::attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv,
                                         const AttentionShape& shape) {
  expect(activation_, {dqkv, dout, out, qkv});
  expect(DType::f32, {lse});
  count("attention_backward", 2 * attention_forward_flops(shape), {dout, out, lse, qkv}, {dqkv});
}

void PlanningBackend::attention_cached(Tensor out, Tensor keys, Tensor values, Tensor qkv,
                                       const AttentionShape& shape, std::int64_t past) {
  expect(activation_, {out, keys, values, qkv});
  const std::int64_t kept = shape.batch * shape.kv_heads * shape.head_dim;  // numbers of a position
  const auto width = static_cast<double>(size_of(activation_));
  machine_.add_op("attention_cached", attention_cached_flops(shape, past),
                  static_cast<double>(qkv.bytes()) + 2 * width * static_cast<double>(kept * past),
                  static_cast<double>(out.bytes()) + 2 * width * static_cast<double>(kept * shape.seq_len));
}

// Rows of the table are counted as many times as they are asked for.
void PlanningBackend::embedding_forward(Tensor out, Tensor ids, Tensor table, std::int64_t /*first_row*/) {
  expect(activation_, {out, table});
  expect(DType::i32, {ids});
  count("embedding_forward", 0, {ids, out}, {out});
}

void PlanningBackend::embedding_backward(Tensor dtable, Tensor dout, Tensor ids, std::int64_t /*first_row*/) {
  expect(DType::f32, {dtable});
  expect(activation_, {dout});
  expect(DType::i32, {ids});
  const double rows = static_cast<double>(dout.numel()) * sizeof(float);
  machine_.add_op("embedding_backward", 0, static_cast<double>(ids.bytes() + dout.bytes()) + rows, rows);
}

void PlanningBackend::scatter_add_rows(Tensor dtable, Tensor dout, Tensor rows) {
  VQLM_ASSERT(dout.extent(0) == rows.numel() && dout.extent(1) == dtable.extent(1));
  expect(DType::f32, {dtable, dout});
  expect(DType::i32, {rows});
  const auto touched = static_cast<double>(dout.bytes());
  machine_.add_op("scatter_add_rows", 0, static_cast<double>(rows.bytes()) + 2 * touched, touched);
}

void PlanningBackend::softmax_statistics(Tensor statistics, Tensor logits, Tensor bias, Tensor targets,
                                         const ClassShard& /*classes*/) {
  expect(DType::f32, {statistics, bias});
  expect(activation_, {logits});
  count("softmax_statistics", 0, {logits, bias, targets}, {statistics});
}

void PlanningBackend::softmax_combine(Tensor nll, Tensor lse, Tensor statistics, Tensor targets) {
  expect(DType::f32, {nll, lse, statistics});
  count("softmax_combine", 0, {statistics, targets}, {nll, lse});
}

void PlanningBackend::softmax_gradient(Tensor logits, Tensor bias, Tensor lse, Tensor targets,
                                       const ClassShard& /*classes*/, float /*scale*/) {
  expect(activation_, {logits});
  expect(DType::f32, {bias, lse});
  count("softmax_gradient", 0, {logits, bias, lse, targets}, {logits});
}

void PlanningBackend::log_softmax(Tensor logits, Tensor bias) {
  expect(DType::f32, {logits, bias});
  count("log_softmax", 0, {logits, bias}, {logits});
}

void PlanningBackend::sort_rows_by_cluster(Tensor clusters, Tensor order, Tensor row_begin, Tensor targets,
                                           const CodeMapView& /*map*/) {
  expect(DType::i32, {clusters, order, row_begin, targets});
  count("sort_rows_by_cluster", 0, {targets, clusters}, {clusters, order, row_begin});
}

void PlanningBackend::member_entropy(Tensor nll, const MemberGradients& gradients, Tensor h, Tensor targets,
                                     Tensor order, Tensor row_begin, Tensor member_codebook,
                                     Tensor token_bias, const CodeMapView& map) {
  expect(activation_, {h, gradients.dh, member_codebook});
  expect(DType::f32, {nll, token_bias, gradients.dmember_codebook, gradients.dtoken_bias});
  const auto vocabulary = static_cast<double>(map.cluster_of_token.numel());
  const auto clusters = static_cast<double>(map.member_begin.numel() - 1);
  const double members = mean_members_ > 0 ? mean_members_ : vocabulary / clusters;
  // s = h u, and in backward dh and du, each over the members of the target's cluster.
  const double passes = gradients.dh ? 3 : 1;
  const double flops = member_codebook ? passes * 2.0 * static_cast<double>(h.numel()) * members : 0.0;
  count("member_entropy", flops,
        {nll, h, targets, order, row_begin, member_codebook, token_bias, map.members, map.member_begin,
         codes_of(member_codebook, map), gradients.dh, gradients.dmember_codebook, gradients.dtoken_bias},
        {nll, gradients.dh, gradients.dmember_codebook, gradients.dtoken_bias});
}

void PlanningBackend::member_log_probs(Tensor log_probs, Tensor h, Tensor code_log_probs,
                                       Tensor member_codebook, Tensor token_bias, const CodeMapView& map) {
  expect(activation_, {h, member_codebook});
  expect(DType::f32, {log_probs, code_log_probs, token_bias});
  // Tables of h_g . u_{g, q}, Q d multiply-adds a row; or V d with the members' own vectors.
  const double rows = static_cast<double>(h.extent(0));
  count(
      "member_log_probs", 2.0 * rows * static_cast<double>(member_codebook.numel()),
      {h, code_log_probs, member_codebook, token_bias, map.cluster_of_token, codes_of(member_codebook, map)},
      {log_probs});
}

void PlanningBackend::cluster_log_probs(Tensor out, Tensor h, Tensor rows, Tensor clusters,
                                        Tensor member_codebook, Tensor token_bias, const CodeMapView& map) {
  expect(activation_, {h, member_codebook});
  expect(DType::f32, {out, token_bias});
  expect(DType::i32, {rows, clusters});
  // Every cluster as large as the largest; its members' vectors are put together from the codebook, or read in place.
  const bool own_vectors = member_codebook && member_codebook.rank() == 2;
  const double d = member_codebook ? static_cast<double>(h.extent(1)) : 0;
  const double vectors = static_cast<double>(rows.numel() + (own_vectors ? out.numel() : 0));
  count("cluster_log_probs", 2.0 * static_cast<double>(out.numel()) * d,
        {rows, clusters, own_vectors ? Tensor{} : member_codebook, token_bias, map.members,
         codes_of(member_codebook, map)},
        {out}, vectors * d * static_cast<double>(size_of(activation_)));
}

void PlanningBackend::add_member_means(Tensor out, Tensor codebook, Tensor members, const CodeMapView& map) {
  expect(activation_, {out, codebook, members});
  count("add_member_means", 0, {codebook, members, map.member_begin}, {out});
}

void PlanningBackend::add_member_means_backward(Tensor dcodebook, Tensor dmembers, Tensor dout,
                                                const CodeMapView& map) {
  expect(DType::f32, {dcodebook, dmembers, dout});
  count("add_member_means_backward", 0, {dcodebook, dmembers, dout, map.member_begin}, {dcodebook, dmembers});
}

void PlanningBackend::commitment(Tensor penalty, Tensor dh, Tensor h, Tensor codebook, Tensor clusters,
                                 float /*beta*/, float /*scale*/) {
  expect(activation_, {dh, h, codebook});
  expect(DType::f32, {penalty});
  count("commitment", 0, {h, clusters, dh}, {penalty, dh}, static_cast<double>(h.bytes()));
}

void PlanningBackend::codes_from_averages(Tensor codebook, Tensor sums, Tensor counts, float /*scale*/) {
  expect(DType::f32, {codebook, sums, counts});
  count("codes_from_averages", 0, {sums, counts}, {codebook});
}

void PlanningBackend::add_sum_of_squares(Tensor out, Tensor x) {
  expect(DType::f64, {out});
  count("add_sum_of_squares", 0, {x}, {out});
}

void PlanningBackend::adamw(Tensor param, Tensor rounded, Tensor m, Tensor v, Tensor grad,
                            Tensor norm_squared, const AdamWStep& /*step*/) {
  expect(DType::f32, {param, m, v, grad});
  expect(activation_, {rounded});
  expect(DType::f64, {norm_squared});
  count("adamw", 0, {param, m, v, grad, norm_squared}, {param, m, v, rounded});
}

void PlanningBackend::moving_average(Tensor average, Tensor x, Tensor norm_squared, float /*decay*/) {
  expect(DType::f32, {average, x});
  expect(DType::f64, {norm_squared});
  count("moving_average", 0, {average, x, norm_squared}, {average});
}

}  // namespace vqlm
