// The ops of PlanningBackend: what each reads and writes, and the operations of products.
#include "train/tools/plan/planning_backend.h"

#include <algorithm>

namespace vqlm {
namespace {

/// What members' vectors are put together by, where they are.
Tensor codes_of(const Tensor& member_codebook, const CodeMapView& map) {
  return member_codebook && member_codebook.rank() == 3 ? map.member_codes : Tensor{};
}

}  // namespace

// Rows of the table are counted as many times as they are asked for.
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

}  // namespace vqlm
