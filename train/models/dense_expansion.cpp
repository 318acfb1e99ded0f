#include "train/models/dense_expansion.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/box.h"
#include "core/error.h"

namespace vqlm {

std::vector<double> cluster_lse(const CodeMap& map, const std::vector<float>& bias) {
  const auto clusters = static_cast<std::size_t>(map.clusters);
  std::vector<double> most(clusters, -std::numeric_limits<double>::infinity());
  std::vector<double> sum(clusters, 0);
  for (std::size_t v = 0; v < bias.size(); ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    most[k] = std::max(most[k], static_cast<double>(bias[v]));
  }
  for (std::size_t v = 0; v < bias.size(); ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    sum[k] += std::exp(static_cast<double>(bias[v]) - most[k]);
  }
  for (std::size_t k = 0; k < clusters; ++k) sum[k] = most[k] + std::log(sum[k]);
  return sum;
}

namespace {

/// Adds to each cluster's row of the codebook (K, d) the mean of its members' vectors (V, d).
void add_member_means(std::vector<float>& codebook, const std::vector<float>& vectors, const CodeMap& map) {
  const MemberOrder order(map.cluster_of_token, map.clusters);
  const std::size_t d = codebook.size() / static_cast<std::size_t>(map.clusters);
  for (std::size_t k = 0; k < static_cast<std::size_t>(map.clusters); ++k) {
    const auto begin = static_cast<std::size_t>(order.begin[k]), end = static_cast<std::size_t>(order.begin[k + 1]);
    for (std::size_t i = 0; i < d; ++i) {
      double sum = 0;
      for (std::size_t place = begin; place < end; ++place) {
        sum += static_cast<double>(vectors[static_cast<std::size_t>(order.members[place]) * d + i]);
      }
      codebook[k * d + i] += static_cast<float>(sum / static_cast<double>(end - begin));
    }
  }
}

VqHeadConfig without_input_codes(const HeadConfig& head) {
  VqHeadConfig without = std::get<VqHeadConfig>(head);
  VQLM_ASSERT(without.input_codes);
  without.input_codes = false;
  return without;
}

}  // namespace

FoldedInputCodes::FoldedInputCodes(const ModelSource& trunk)
    : ReplacedHead(trunk, without_input_codes(trunk.head())),
      map_(trunk.code_map().value()),
      input_codebook_(read_whole(trunk, "vq_head.input_codebook")) {}

std::vector<float> FoldedInputCodes::read(const std::string& name, const Shape& offset, const Shape& extent) const {
  if (name != "model.embed_tokens.weight") return ReplacedHead::read(name, offset, extent);
  std::vector<float> rows = trunk().read(name, offset, extent);
  for (std::int64_t i = 0; i < extent[0]; ++i) {
    const std::int64_t k = map_.cluster_of_token[static_cast<std::size_t>(offset[0] + i)];
    const float* const code = input_codebook_.data() + k * model().d_model + offset[1];
    for (std::int64_t j = 0; j < extent[1]; ++j) rows[static_cast<std::size_t>(i * extent[1] + j)] += code[j];
  }
  return rows;
}

std::vector<float> FoldedInputCodes::read_head(const std::string& name, const Shape& offset,
                                               const Shape& extent) const {
  std::vector<float> values = trunk().read(name, offset, extent);
  if (name != "vq_head.codebook" || !std::get<VqHeadConfig>(head()).member_mean()) return values;
  for (std::int64_t i = 0; i < extent[0]; ++i) {
    const float* const code = input_codebook_.data() + (offset[0] + i) * model().d_model + offset[1];
    for (std::int64_t j = 0; j < extent[1]; ++j) {
      values[static_cast<std::size_t>(i * extent[1] + j)] -= code[j];
    }
  }
  return values;
}

DenseExpansion::DenseExpansion(const ModelSource& trunk) : ReplacedHead(trunk, DenseHeadConfig{.bias = true}) {
  const auto& head = std::get<VqHeadConfig>(trunk.head());
  map_ = trunk.code_map().value();
  const auto vocab = static_cast<std::size_t>(map_.vocab_size);
  const std::vector<float> member_bias =
      head.bias ? read_whole(trunk, "vq_head.token_bias") : std::vector<float>(vocab, 0.0f);
  const std::vector<float> cluster_bias = read_whole(trunk, "vq_head.cluster_bias");
  codebook_ = read_whole(trunk, "vq_head.codebook");
  if (map_.groups > 0) member_codebook_ = read_whole(trunk, "vq_head.member_codebook");
  if (head.by_embedding()) member_vectors_ = read_whole(trunk, "model.embed_tokens.weight");
  if (head.member_mean()) add_member_means(codebook_, member_vectors_, map_);
  const std::vector<double> lse = cluster_lse(map_, member_bias);
  bias_.resize(vocab);
  for (std::size_t v = 0; v < vocab; ++v) {
    const auto k = static_cast<std::size_t>(map_.cluster_of_token[v]);
    const double share = static_cast<double>(member_bias[v]) - lse[k];  // log pi(v)
    bias_[v] = static_cast<float>(static_cast<double>(cluster_bias[k]) + share);
    if (!exact()) {
      const auto token = static_cast<std::int64_t>(v);
      add_member(token, -static_cast<float>(std::exp(share)),
                 codebook_.data() + static_cast<std::int64_t>(k) * model().d_model);
    }
  }
}

void DenseExpansion::add_member(std::int64_t token, float scale, float* out) const {
  if (!member_vectors_.empty()) {
    const std::int64_t d = model().d_model;
    const float* const u = member_vectors_.data() + token * d;
    for (std::int64_t i = 0; i < d; ++i) out[i] += scale * u[i];
    return;
  }
  const std::int64_t groups = map_.groups;
  const std::int64_t width = groups > 0 ? model().d_model / groups : 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t code = map_.member_codes[static_cast<std::size_t>(token * groups + g)];
    const float* u = member_codebook_.data() + (g * map_.codes + code) * width;
    for (std::int64_t i = 0; i < width; ++i) out[g * width + i] += scale * u[i];
  }
}

void DenseExpansion::row(std::int64_t token, float* out) const {
  const std::int64_t d = model().d_model;
  std::copy_n(codebook_.data() + map_.cluster_of_token[static_cast<std::size_t>(token)] * d, d, out);
  add_member(token, 1.0f, out);
}

std::vector<float> DenseExpansion::read_head(const std::string& name, const Shape& offset, const Shape& extent) const {
  if (name == "lm_head.bias") return box_of(bias_, {model().vocab_size}, offset, extent);
  const std::int64_t d = model().d_model;
  std::vector<float> rows(static_cast<std::size_t>(extent[0] * d));
  for (std::int64_t i = 0; i < extent[0]; ++i) row(offset[0] + i, rows.data() + i * d);
  return box_of(rows, {extent[0], d}, {0, offset[1]}, extent);
}

}  // namespace vqlm
