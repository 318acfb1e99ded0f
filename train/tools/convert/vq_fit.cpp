#include "train/tools/convert/vq_fit.h"

#include <spdlog/fmt/fmt.h>

#include <Eigen/Dense>
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/task_progress.h"
#include "train/codes/map_fit.h"
#include "train/tools/convert/dense_rows.h"
#include "train/tools/convert/member_fit.h"

namespace vqlm {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<RowMajor>;
using ConstRows = Eigen::Map<const RowMajor>;

std::int64_t power_of_two_near(double x) {
  return std::int64_t{1} << std::max(0l, std::lround(std::log2(std::max(x, 1.0))));
}

int default_groups(std::int64_t d) {
  for (std::int64_t groups = std::min<std::int64_t>(64, d / 8); groups > 1; --groups) {
    if (d % groups == 0) return static_cast<int>(groups);
  }
  return 1;
}

/// z0_v = o . w_v + b_v, (V).
std::vector<double> logits_at(const WeightedVectors& w, const std::vector<float>& mean_hidden,
                              const std::vector<float>& bias) {
  std::vector<double> logits(bias.begin(), bias.end());
  if (mean_hidden.empty()) return logits;
  const Eigen::Map<const Eigen::VectorXf> o(mean_hidden.data(), w.dims);
  const Eigen::VectorXf products = ConstRows(w.values.data(), w.rows, w.dims) * o;
  for (std::int64_t v = 0; v < w.rows; ++v) {
    logits[static_cast<std::size_t>(v)] += static_cast<double>(products(v));
  }
  return logits;
}

/// log sum exp over each cluster's members, (K).
std::vector<double> lse_of_clusters(const CodeMap& map, const std::vector<double>& logits) {
  std::vector<double> lse(static_cast<std::size_t>(map.clusters), -std::numeric_limits<double>::infinity());
  for (std::size_t v = 0; v < logits.size(); ++v) {
    double& sum = lse[static_cast<std::size_t>(map.cluster_of_token[v])];
    const double high = std::max(sum, logits[v]);
    sum = high + std::log(std::exp(sum - high) + std::exp(logits[v] - high));
  }
  return lse;
}

/// c_k and beta_k of the header's formula to first order; `w` holds the dense rows.
void expand_clusters(const CodeMap& map, const WeightedVectors& w, const std::vector<double>& logits,
                     const std::vector<float>& mean_hidden, std::map<std::string, std::vector<float>>& tensors) {
  const std::vector<double> lse = lse_of_clusters(map, logits);
  Eigen::MatrixXd codebook = Eigen::MatrixXd::Zero(map.clusters, w.dims);
  const ConstRows rows(w.values.data(), w.rows, w.dims);
  for (std::int64_t v = 0; v < w.rows; ++v) {
    const auto i = static_cast<std::size_t>(v);
    const std::int32_t k = map.cluster_of_token[i];
    codebook.row(k) += std::exp(logits[i] - lse[static_cast<std::size_t>(k)]) * rows.row(v).cast<double>();
  }
  std::vector<float>& c = tensors["vq_head.codebook"];
  c.resize(static_cast<std::size_t>(map.clusters * w.dims));
  Rows(c.data(), map.clusters, w.dims) = codebook.cast<float>();
  Eigen::VectorXd beta = Eigen::Map<const Eigen::VectorXd>(lse.data(), map.clusters);
  if (!mean_hidden.empty()) {
    beta -= codebook * Eigen::Map<const Eigen::VectorXf>(mean_hidden.data(), w.dims).cast<double>();
  }
  for (std::int64_t k = 0; k < map.clusters; ++k) {
    tensors["vq_head.cluster_bias"].push_back(static_cast<float>(beta(k)));
  }
}

/// Takes the (plain) means of the clusters' rows out of their codes: the head adds them.
void subtract_means(const CodeMap& map, const WeightedVectors& w, std::vector<float>& codebook) {
  const MemberOrder order(map.cluster_of_token, map.clusters);
  const ConstRows rows(w.values.data(), w.rows, w.dims);
  Rows codes(codebook.data(), map.clusters, w.dims);
  for (std::int64_t k = 0; k < map.clusters; ++k) {
    const std::int32_t begin = order.begin[static_cast<std::size_t>(k)],
                       end = order.begin[static_cast<std::size_t>(k) + 1];
    Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(w.dims);
    for (std::int32_t i = begin; i < end; ++i)
      mean += rows.row(order.members[static_cast<std::size_t>(i)]).cast<double>();
    codes.row(k) -= (mean / static_cast<double>(end - begin)).cast<float>();
  }
}

/// -(o . u_v) for every token: what its vector adds at h = o, to be taken out of its bias. `x`: (w_v - m_k) before and
/// (w_v - m_k - u_v) after subtract_members.
std::vector<double> products_with(const WeightedVectors& x, const std::vector<float>& mean_hidden) {
  return logits_at(x, mean_hidden, std::vector<float>(static_cast<std::size_t>(x.rows), 0.0f));
}

std::string provenance(const ModelSource& source, const VqFitOptions& options, const TextStatistics& text) {
  return fmt::format("rows of the dense head of {}{}, seed {}", source.path().string(),
                     text.counts.empty() ? "" : ", weighed by token counts", options.seed);
}

}  // namespace

VqFitOptions vq_sizes(const ModelConfig& model, VqFitOptions options) {
  const auto vocab = static_cast<double>(model.vocab_size);
  if (options.members == MemberVectors::embedding) {
    if (!model.tie_embeddings) {
      throw UsageError(
          "--members embedding: the dense head has a matrix of its own, which rows of the embedding cannot stand for; "
          "choose --members codes");
    }
    if (options.groups > 0 || options.codes > 0) throw UsageError("--groups and --codes: belong to --members codes");
    options.groups = 0;
  }
  if (options.groups < 0) options.groups = default_groups(model.d_model);
  if (options.groups == 0) {
    options.codes = 0;
  } else if (options.codes == 0) {
    options.codes = static_cast<int>(std::clamp<std::int64_t>(power_of_two_near(vocab / 200), 4, 256));
  }
  if (options.clusters == 0) {
    const std::int64_t left = power_of_two_near(vocab / 100 - options.codes);
    options.clusters = std::clamp<std::int64_t>(std::max(left, power_of_two_near(vocab / 200)), 1, model.vocab_size);
  }
  if (options.groups > 0 && model.d_model % options.groups != 0) {
    throw UsageError(fmt::format("--groups {}: it must divide the model's width d = {}; choose {}", options.groups,
                                 model.d_model, default_groups(model.d_model)));
  }
  check_code_map_sizes(model.vocab_size, options.clusters, options.groups, options.codes);
  return options;
}

VqFit fit_vq_head(const ModelSource& source, const VqFitOptions& asked, const TextStatistics& text, Backend& backend) {
  VQLM_ASSERT(kind_of(source.head()) == HeadKind::dense);
  const VqFitOptions options = vq_sizes(source.model(), asked);
  WeightedVectors w = read_rows(source, text.counts);
  CodeMap map{.vocab_size = w.rows,
              .clusters = options.clusters,
              .groups = options.groups,
              .codes = options.codes,
              .cluster_of_token = {},
              .member_codes = {},
              .provenance = provenance(source, options, text),
              .counted_tokens = std::accumulate(text.counts.begin(), text.counts.end(), std::int64_t{0})};
  {
    const TaskProgress progress(fmt::format("putting {} rows into {} clusters", w.rows, map.clusters));
    WeightedVectors x = leading_components(w);
    centre_rotate_normalise(x, options.seed);
    map.cluster_of_token = balanced_clusters(x, map.clusters, options.seed, backend);
  }
  const std::vector<float> bias = has_bias(source.head()) ? read_whole(source, "lm_head.bias")
                                                          : std::vector<float>(static_cast<std::size_t>(w.rows), 0.0f);
  const std::vector<double> logits = logits_at(w, text.mean_hidden, bias);
  std::map<std::string, std::vector<float>> tensors;
  expand_clusters(map, w, logits, text.mean_hidden, tensors);
  VqFit fit;
  if (text.hidden.rows > 0) {
    fit.clusters = fit_clusters(tensors["vq_head.codebook"], tensors["vq_head.cluster_bias"], text.hidden,
                                cluster_probabilities(w, bias, map, text.hidden, backend), backend);
  }
  const bool by_rows = options.members == MemberVectors::embedding;
  if (by_rows) subtract_means(map, w, tensors["vq_head.codebook"]);

  const double variance = weighted_variance(w);
  subtract_cluster_means(w, map.cluster_of_token, map.clusters);
  fit.kept_by_clusters = 1 - weighted_squares(w) / variance;
  fit.kept_by_codes = fit.kept_by_clusters;
  std::vector<double> token_bias = logits;
  if (by_rows) {
    token_bias.assign(bias.begin(), bias.end());
    fit.kept_by_codes = 1;
  }
  if (map.groups > 0) {
    const TaskProgress progress(fmt::format("making {} groups of {} codes for {} rows", map.groups, map.codes, w.rows));
    const std::vector<float>& u = tensors["vq_head.member_codebook"] =
        text.hidden.rows == 0 ? fit_members(map, w, options.seed)
                              : fit_members(map, w, moments_of(text.hidden, text.hidden.rows), options.seed);
    const std::vector<double> before = products_with(w, text.mean_hidden);
    subtract_members(map, u, w);
    const std::vector<double> after = products_with(w, text.mean_hidden);
    for (std::size_t v = 0; v < token_bias.size(); ++v) token_bias[v] -= before[v] - after[v];
    subtract_cluster_means(w, map.cluster_of_token, map.clusters);
    fit.kept_by_codes = 1 - weighted_squares(w) / variance;
  }
  // A constant of the whole cluster changes nothing; without it the numbers stay small.
  const std::vector<double> lse = lse_of_clusters(map, token_bias);
  for (std::size_t v = 0; v < token_bias.size(); ++v) {
    const double shift = lse[static_cast<std::size_t>(map.cluster_of_token[v])];
    tensors["vq_head.token_bias"].push_back(static_cast<float>(token_bias[v] - shift));
  }
  VqHeadConfig head = code_head(map.clusters, map.groups, map.codes);
  if (by_rows) head.members = EmbeddingMembersConfig{};
  fit.model = std::make_unique<VqReplacement>(source, head, std::move(map), std::move(tensors));
  return fit;
}

}  // namespace vqlm
