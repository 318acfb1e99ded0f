#include "train/tools/convert/expanded_head.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace vqlm {

namespace {

/// Below the rounding of logits around 10 in f32.
constexpr double tolerance = 1e-6;

std::vector<float> read_vector(const ModelSource& source, const char* name, std::int64_t size) {
  return source.read(name, {0}, {size});
}

/// (K): log of the sum of exp(b) over each cluster's members.
std::vector<double> cluster_log_sums(const CodeMap& map, const std::vector<float>& bias) {
  const auto clusters = static_cast<std::size_t>(map.clusters);
  std::vector<double> highest(clusters, -INFINITY), sums(clusters, 0.0);
  for (std::size_t v = 0; v < bias.size(); ++v) {
    double& high = highest[static_cast<std::size_t>(map.cluster_of_token[v])];
    high = std::max(high, static_cast<double>(bias[v]));
  }
  for (std::size_t v = 0; v < bias.size(); ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    sums[k] += std::exp(static_cast<double>(bias[v]) - highest[k]);
  }
  for (std::size_t k = 0; k < clusters; ++k) sums[k] = highest[k] + std::log(sums[k]);
  return sums;
}

ExpandedHead expand_vq(const ModelSource& source) {
  const CodeMap map = source.code_map().value();
  const bool alone = map.clusters == map.vocab_size;  // then the scores inside a cluster cancel
  const auto& vq = std::get<VqHeadConfig>(source.head());
  const bool embedding = vq.by_embedding();
  if (vq.member_mean()) {
    throw Error(
        fmt::format("{}: --expand: clusters are scored by their codes plus means of embedding rows (head.member_mean = "
                    "true), which no matrix of the model holds; leave --expand out for the native form",
                    source.path().string()));
  }
  if ((map.groups > 0 || embedding) && !alone) {
    throw Error(fmt::format(
        "{}: --expand: no matrix equals this head ({}): inside a cluster, the sum that makes "
        "probabilities of scores depends on the hidden state; leave --expand out for the native form",
        source.path().string(),
        embedding ? std::string("head.members = \"embedding\"") : fmt::format("head.groups = {}", map.groups)));
  }
  std::vector<float> bias(static_cast<std::size_t>(map.vocab_size), 0.0f);
  if (vq.bias) bias = read_vector(source, "vq_head.token_bias", map.vocab_size);
  const std::vector<float> cluster_bias = read_vector(source, "vq_head.cluster_bias", map.clusters);
  const std::vector<double> sums = cluster_log_sums(map, bias);
  ExpandedHead head{.matrix = "vq_head.codebook", .row_of_token = map.cluster_of_token, .constants = {}};
  for (std::size_t v = 0; v < bias.size(); ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    head.constants.push_back(cluster_bias[k] + (alone ? 0.0 : bias[v] - sums[k]));
  }
  return head;
}

}  // namespace

ExpandedHead expand_head(const ModelSource& source) {
  if (vq_of(source.head()) != nullptr) return expand_vq(source);
  VQLM_ASSERT(kind_of(source.head()) == HeadKind::dense);
  ExpandedHead head{.matrix = source.model().tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
                    .row_of_token = {},
                    .constants = {}};
  if (has_bias(source.head())) {
    const std::vector<float> bias = read_vector(source, "lm_head.bias", source.model().vocab_size);
    head.constants.assign(bias.begin(), bias.end());
  }
  return head;
}

void check_no_bias(const ExpandedHead& head, const ModelSource& source) {
  if (head.constants.empty()) return;
  const auto [low, high] = std::minmax_element(head.constants.begin(), head.constants.end());
  if (*high - *low <= tolerance) return;
  throw Error(
      fmt::format("{}: --expand: stock Llama has no bias, and this head's goes from {:.6g} (token {}) to {:.6g} (token "
                  "{}); leave --expand out for the native form",
                  source.path().string(), *low, low - head.constants.begin(), *high, high - head.constants.begin()));
}

}  // namespace vqlm
