// VqHead's part in generation: log-probabilities come to the host cluster by cluster, and the search decides which.
#include "core/model/head/vq_head_choice.h"

#include <algorithm>
#include <utility>

#include "core/model/head/vq_head.h"
#include "core/tensor_arena.h"

namespace vqlm {
namespace {

// A device answers eight clusters in the time of one: launches and the copy back cost more than their members. On a host
// every cluster costs its members.
constexpr std::size_t first_on_host = 2, first_on_device = 8, most_at_once = 32;

}  // namespace

VqHeadChoice::VqHeadChoice(Backend& backend, MemberOrder order, std::int64_t cluster_count, std::int64_t largest)
    : search(std::move(order.members), std::move(order.begin),
             std::min(static_cast<std::size_t>(cluster_count),
                      backend.host_accessible() ? first_on_host : first_on_device),
             std::min(static_cast<std::size_t>(cluster_count), most_at_once)) {
  const std::int64_t most = std::min(cluster_count, static_cast<std::int64_t>(most_at_once));
  TensorArena arena;
  arena.add(codes, {1, cluster_count}, DType::f32);
  arena.add(rows_of_h, {most}, DType::i32);
  arena.add(clusters, {most}, DType::i32);
  arena.add(member_rows, {most, largest}, DType::f32);
  storage = arena.allocate(backend, MemoryUse::workspace);
  backend.fill(rows_of_h, 0);
  host_codes.resize(static_cast<std::size_t>(cluster_count));
  host_rows.resize(static_cast<std::size_t>(most * largest));
}

VqHeadChoice& VqHead::choice() {
  VQLM_ASSERT(!map_.has_parts());  // texts are generated on one tensor rank
  if (!choice_) {
    choice_.emplace(tensor_.backend(), MemberOrder(map_.cluster_of_token(), clusters_), clusters_,
                    map_.whole().largest_cluster);
  }
  return *choice_;
}

std::span<const float> VqHead::host_code_log_probs(Tensor h) {
  Backend& backend = tensor_.backend();
  VqHeadChoice& c = choice();
  members_->vectors(Reuse::none);  // which the clusters' vectors may be made of
  backend.run(Matmul{.c = c.codes,
                     .a = h,
                     .b = cluster_vectors().rows(0, clusters_),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  backend.run(LogSoftmax{.logits = c.codes, .bias = parameters_.operand(cluster_bias_)});
  backend.copy_to_host(c.host_codes.data(), c.codes);
  return c.host_codes;
}

ClusterSearch::MemberRows VqHead::member_rows(Tensor h, std::span<const std::int32_t> clusters) {
  Backend& backend = tensor_.backend();
  VqHeadChoice& c = choice();
  const auto count = static_cast<std::int64_t>(clusters.size());
  const Tensor ids = c.clusters.rows(0, count), rows = c.member_rows.rows(0, count);
  backend.copy_from_host(ids, clusters.data());
  const Tensor vectors = members_->vectors(Reuse::none);
  backend.run(ClusterLogProbs{.out = rows,
                              .h = h,
                              .rows = c.rows_of_h.rows(0, count),
                              .clusters = ids,
                              .member_codebook = vectors,
                              .token_bias = token_bias(),
                              .map = map_.whole()});
  backend.copy_to_host(c.host_rows.data(), rows);
  return {c.host_rows, static_cast<std::size_t>(map_.whole().largest_cluster)};
}

std::vector<TokenLogProb> VqHead::most_probable(Tensor h, std::int64_t count, double mass) {
  return choice().search.most_probable(
      host_code_log_probs(h), count, mass,
      [&](std::span<const std::int32_t> clusters) { return member_rows(h, clusters); });
}

std::int32_t VqHead::sample(Tensor h, float temperature, const std::function<double()>& uniform) {
  return choice().search.sample(host_code_log_probs(h), temperature, uniform,
                                [&](std::span<const std::int32_t> clusters) { return member_rows(h, clusters); });
}

}  // namespace vqlm
