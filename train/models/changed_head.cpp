#include "train/models/changed_head.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <map>
#include <string>

#include "core/error.h"
#include "train/config/model_text.h"
#include "train/models/dense_expansion.h"
#include "train/models/multiplied_head.h"
#include "train/models/replaced_head.h"

namespace vqlm {
namespace {

constexpr const char* table_name = "model.embed_tokens.weight";
constexpr const char* matrix_name = "lm_head.weight";

/// An untied dense model without its matrix: the embedding table is the head's. Where the model is the expansion of a VQ head
/// with members by the embedding, rows of the matrix and of the table differ by a vector a cluster, which is lost; the input
/// stays, which costs less than the other way round (docs/checkpoints.md).
class TiedToTable : public ReplacedHead {
 public:
  explicit TiedToTable(const ModelSource& untied) : ReplacedHead(untied, untied.head(), Tied::yes) {}

  std::optional<CodeMap> code_map() const override { return std::nullopt; }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override {
    return trunk().read(name, offset, extent);
  }
};

/// A tied model with a matrix of its own for the head, equal to the table.
class UntiedCopy : public ReplacedHead {
 public:
  explicit UntiedCopy(const ModelSource& tied) : ReplacedHead(tied, tied.head()) {}

  std::optional<CodeMap> code_map() const override { return std::nullopt; }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override {
    return trunk().read(name == matrix_name ? table_name : name, offset, extent);
  }
};

/// The tied head as a VQ head whose members are the table's rows e_v. Inside a cluster k its scores stay as they are, s_v = h .
/// e_v + b_v; the cluster's own should be lse_{w in k}(s_w), whose tangent at h = 0 it gets, with pi(w) = softmax over the
/// cluster of b_w:
///
///   beta_k = lse_{w in k}(b_w),   c_k = sum_{w in k} pi(w) e_w,
///
/// less the mean of the e_w where head.member_mean adds it. Input codes start at 0.
std::unique_ptr<ModelSource> tied_as_vq(const ModelSource& tied, const VqHeadConfig& head, const CodeMap& map) {
  const std::int64_t d = tied.model().d_model;
  const std::vector<float> table = read_whole(tied, table_name);
  const auto vocab = static_cast<std::size_t>(map.vocab_size), clusters = static_cast<std::size_t>(map.clusters);
  const std::vector<float> bias =
      has_bias(tied.head()) ? read_whole(tied, "lm_head.bias") : std::vector<float>(vocab, 0.0f);
  const std::vector<double> lse = cluster_lse(map, bias);
  std::vector<double> sizes(clusters, 0.0);
  for (const std::int32_t k : map.cluster_of_token) ++sizes[static_cast<std::size_t>(k)];
  std::vector<float> codebook(clusters * static_cast<std::size_t>(d), 0.0f);
  for (std::size_t v = 0; v < vocab; ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    const double mean = head.member_mean() ? 1 / sizes[k] : 0;
    const auto weight = static_cast<float>(std::exp(static_cast<double>(bias[v]) - lse[k]) - mean);
    const float* const row = table.data() + static_cast<std::int64_t>(v) * d;
    float* const code = codebook.data() + static_cast<std::int64_t>(k) * d;
    for (std::int64_t i = 0; i < d; ++i) code[i] += weight * row[i];
  }
  std::map<std::string, std::vector<float>> tensors;
  tensors["vq_head.cluster_bias"] = std::vector<float>(lse.begin(), lse.end());
  if (head.input_codes) tensors["vq_head.input_codebook"] = std::vector<float>(codebook.size(), 0.0f);
  if (head.bias) tensors["vq_head.token_bias"] = bias;
  tensors["vq_head.codebook"] = std::move(codebook);
  return std::make_unique<VqReplacement>(tied, head, map, std::move(tensors));
}

[[noreturn]] void refuse(const Config& config, const ModelSource& source, const std::string& why) {
  throw UsageError(fmt::format("the checkpoint {} has the head {}, and the run would go on with {}: {}",
                               source.path().string(), head_text(source.model(), source.head()),
                               head_text(config.model, config.head), why));
}

/// The product of the matrices is a dense head's matrix, and of nothing else.
void check_low_rank_change(const Config& config, const ModelSource& source) {
  if (source.model().tie_embeddings) {
    refuse(
        config, source,
        "its matrices are the embedding's, too, whose moments would be lost; vqlm convert --head dense multiplies them out, "
        "for train --init");
  }
  if (kind_of(config.head) != HeadKind::dense || config.model.tie_embeddings) {
    refuse(config, source,
           "of a low-rank head a dense one with a matrix of its own is made: set head.kind = \"dense\" and "
           "model.tie_embeddings = false");
  }
  if (has_bias(config.head) != has_bias(source.head())) {
    refuse(config, source, fmt::format("set head.bias = {}", has_bias(source.head())));
  }
}

}  // namespace

bool changes_head(const Config& now, const Config& saved) {
  return kind_of(now.head) != kind_of(saved.head) || now.model.tie_embeddings != saved.model.tie_embeddings;
}

void check_head_change(const Config& config, const ModelSource& source) {
  if (const int heads = future_of(config.head).heads; heads > 0) {
    refuse(config, source,
           fmt::format("heads for later tokens (head.future = {}) belong to the output head that they began with: set "
                       "head.future = 0",
                       heads));
  }
  if (low_rank_of(config.head) != nullptr) {
    refuse(config, source, "a low-rank head is made of no other; start with it, or go on with head.kind = \"dense\"");
  }
  if (adaptive_of(config.head) != nullptr)
    refuse(config, source, "an adaptive head is made of no other; start with it");
  if (adaptive_of(source.head()) != nullptr)
    refuse(config, source, "of an adaptive head no other is made: its probabilities are of several softmaxes");
  const bool tied_before = source.model().tie_embeddings;
  const VqHeadConfig* const vq = vq_of(config.head);
  const float cap = softcap_of(source.head());
  if (vq == nullptr && softcap_of(config.head) != cap)
    refuse(config, source, fmt::format("the logits' cap stays as it is: set head.softcap = {}", cap));
  if (vq != nullptr && cap > 0) {
    refuse(config, source,
           "a VQ head does not cap its logits (head.softcap), and without a cap they mean something else: go on with "
           "head.kind = \"dense\"");
  }
  if (low_rank_of(source.head()) != nullptr) return check_low_rank_change(config, source);
  if (const VqHeadConfig* const before = vq_of(source.head())) {
    if (!has_bias(config.head)) refuse(config, source, "a VQ head needs the dense one's bias: set head.bias = true");
    if (config.model.tie_embeddings && !before->by_embedding()) {
      refuse(config, source, "the table has nothing of its members: set model.tie_embeddings = false");
    }
    return;
  }
  if (!tied_before) {
    refuse(
        config, source,
        "of a dense head with a matrix of its own no other is made in a run; vqlm convert --head vq fits one, for train "
        "--init");
  }
  if (has_bias(source.head()) && !has_bias(config.head)) {
    refuse(config, source, "the bias would be lost: set head.bias = true");
  }
  if (vq == nullptr) {
    if (has_bias(config.head) != has_bias(source.head())) {
      refuse(config, source, fmt::format("set head.bias = {}", has_bias(source.head())));
    }
    return;
  }
  if (!vq->by_embedding() || !std::holds_alternative<GradientLearningConfig>(vq->learning)) {
    refuse(
        config, source,
        "a tied table becomes the members' vectors: set head.members = \"embedding\" and head.learning = \"gradient\"");
  }
}

std::vector<std::unique_ptr<ModelSource>> with_changed_head(const ModelSource& source, const Config& config,
                                                            const CodeMap* map) {
  std::vector<std::unique_ptr<ModelSource>> chain;
  const auto last = [&]() -> const ModelSource& { return chain.empty() ? source : *chain.back(); };
  if (const VqHeadConfig* const before = vq_of(source.head())) {
    if (before->input_codes) chain.push_back(std::make_unique<FoldedInputCodes>(last()));
    chain.push_back(std::make_unique<DenseExpansion>(last()));
    if (config.model.tie_embeddings) chain.push_back(std::make_unique<TiedToTable>(last()));
  } else if (low_rank_of(source.head()) != nullptr) {
    chain.push_back(std::make_unique<MultipliedHead>(source));
  } else if (const VqHeadConfig* const vq = vq_of(config.head)) {
    VQLM_ASSERT(map != nullptr);
    chain.push_back(tied_as_vq(source, *vq, *map));
  } else {
    chain.push_back(std::make_unique<UntiedCopy>(source));
  }
  return chain;
}

}  // namespace vqlm
