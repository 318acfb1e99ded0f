#include "core/model/head/vq_head.h"

#include <algorithm>
#include <cmath>

#include "core/box.h"
#include "core/tensor_arena.h"

namespace vqlm {
namespace {

/// The tokens whose members' vectors this rank has, where it has not all.
std::optional<TensorParallel::Part> part_of_members(const HeadContext& context, const VqHeadConfig& config) {
  if (!config.by_embedding() || context.tensor.size() == 1) return std::nullopt;
  return context.tensor.part_of(context.model.vocab_size);
}

}  // namespace

VqHead::VqHead(const HeadContext& context, const VqHeadConfig& config, const CodeMap& map)
    : tensor_(context.tensor),
      parameters_(context.parameters),
      vocab_size_(context.model.vocab_size),
      d_model_(context.model.d_model),
      rows_(context.rows),
      clusters_(map.clusters),
      step_tokens_(context.step_tokens),
      commitment_(config.commitment()),
      map_(context.tensor.backend(), map, part_of_members(context, config)),
      member_softmax_(context.tensor, map_, context.rows, context.model.d_model, context.trainable) {
  VQLM_ASSERT(map.vocab_size == vocab_size_ && map.clusters == config.clusters && map.groups == config.groups() &&
              (map.groups == 0 || map.codes == config.codes()));
  add_parameters(context, config);
  VQLM_ASSERT(!(averages_ && config.member_mean()));
  if (config.input_codes) input_codes_.emplace(context, clusters_);
  allocate_workspace();
}

void VqHead::add_parameters(const HeadContext& context, const VqHeadConfig& config) {
  const int matrices = context.buckets.matrices, biases = context.buckets.biases;
  const auto* averaged = context.trainable ? std::get_if<EmaLearningConfig>(&config.learning) : nullptr;
  Parameter codebook = replicated_parameter("vq_head.codebook", {clusters_, d_model_}, 0.02f, ParameterRole::table);
  if (averaged != nullptr) codebook.rule = UpdateRule::derived;
  // With means the product's result is of both, and added from there.
  if (averaged == nullptr && !config.member_mean()) codebook.gradient_start = GradientStart::product;
  codebook.padded_rows = logit_width();
  codebook_ = parameters_.add(matrices, {codebook});
  if (averaged != nullptr) averages_.emplace(tensor_, parameters_, matrices, codebook_, *averaged, rows_);
  members_ = make_members(context, config, map_);
  cluster_bias_ =
      parameters_.add(biases, {replicated_parameter("vq_head.cluster_bias", {clusters_}, 0.0f, ParameterRole::head)});
  if (config.bias) {
    token_bias_ =
        parameters_.add(biases, {replicated_parameter("vq_head.token_bias", {vocab_size_}, 0.0f, ParameterRole::head)});
    return;
  }
  Backend& backend = tensor_.backend();
  TensorArena arena;
  arena.add(fixed_bias_, {vocab_size_}, DType::f32);
  arena.add(unused_gradient_, {vocab_size_}, DType::f32);
  fixed_storage_ = arena.allocate(backend, MemoryUse::workspace);
  backend.fill(fixed_bias_, 0.0f);
  backend.fill(unused_gradient_, 0.0f);
}

void VqHead::allocate_workspace() {
  Backend& backend = tensor_.backend();
  const DType a = backend.activation_dtype();
  TensorArena arena;
  arena.add(logits_, {rows_, logit_width()}, a);
  if (a != DType::f32) arena.add(code_log_probs_, {rows_, clusters_}, DType::f32);
  arena.add(statistics_, {rows_, 3}, DType::f32);
  arena.add(lse_, {rows_}, DType::f32);
  arena.add(cluster_nll_, {rows_}, DType::f32);
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  if (a == DType::f32) code_log_probs_ = logits_.view({rows_, clusters_});  // never used at the same time
}

HeadCost VqHead::cost() const {
  const double d = static_cast<double>(d_model_);
  const CodeMapView& map = map_.whole();
  const std::int64_t groups = map.member_codes ? map.member_codes.extent(1) : 0;
  return {
      .matrix_parameters = clusters_ * d_model_ + members_->parameters(),
      .bias_parameters = clusters_ + (token_bias_ ? vocab_size_ : 0),
      .code_bytes = vocab_size_ * (static_cast<std::int64_t>(sizeof(std::int32_t)) + groups),
      .multiply_adds = static_cast<double>(clusters_) * d + map.mean_members * static_cast<double>(members_->width())};
}

void VqHead::initialize(const std::vector<std::int64_t>& counts) {
  // With b_v = log p(v) and beta_k = log p(cluster k), the head starts as the unigram model, as the dense one
  // does.
  const std::vector<float> unigram = log_unigram(counts);
  if (token_bias_) parameters_.set_from_whole(*token_bias_, unigram);
  const std::vector<double> mass = cluster_mass(unigram);
  std::vector<float> bias(mass.size());
  for (std::size_t k = 0; k < mass.size(); ++k) bias[k] = static_cast<float>(std::log(mass[k]));
  parameters_.set_from_whole(cluster_bias_, bias);
  if (averages_) averages_->start(mass, step_tokens_);
}

std::vector<double> VqHead::cluster_mass(const std::vector<float>& unigram) const {
  std::vector<double> mass(static_cast<std::size_t>(clusters_), 0.0);
  for (std::size_t token = 0; token < unigram.size(); ++token) {
    mass[static_cast<std::size_t>(map_.cluster_of_token()[token])] += std::exp(static_cast<double>(unigram[token]));
  }
  return mass;
}

void VqHead::start_averages(const std::vector<std::int64_t>& counts) {
  if (averages_) averages_->start(cluster_mass(log_unigram(counts)), step_tokens_);
}

void VqHead::after_update() {
  if (averages_) averages_->after_update();
}

void VqHead::codes_forward(Tensor nll, Tensor h, Tensor targets, Tensor clusters) {
  Backend& backend = tensor_.backend();
  clusters_of_rows_ = member_softmax_.sort(targets);
  backend.run(Matmul{.c = logits_, .a = h, .b = clusters, .tb = Transpose::yes, .accumulate = Accumulate::no});
  backend.run(SoftmaxStatistics{.statistics = statistics_,
                                .logits = logits_,
                                .bias = parameters_.operand(cluster_bias_),
                                .targets = clusters_of_rows_,
                                .classes = {.count = clusters_}});
  backend.run(SoftmaxCombine{
      .nll = nll, .lse = lse_, .statistics = statistics_.view({1, rows_, 3}), .targets = clusters_of_rows_});
}

void VqHead::codes_backward(Tensor dh, Tensor h, Tensor clusters, float scale) {
  Backend& backend = tensor_.backend();
  backend.run(SoftmaxGradient{.logits = logits_,
                              .bias = parameters_.operand(cluster_bias_),
                              .lse = lse_,
                              .targets = clusters_of_rows_,
                              .classes = {.count = clusters_},
                              .scale = scale});
  if (averages_) {
    averages_->accumulate(h, clusters_of_rows_);
  } else if (const Tensor gradient = members_->cluster_gradient()) {
    const Accumulate accumulate = pass_.began_clusters ? Accumulate::yes : Accumulate::no;
    backend.run(Matmul{.c = gradient, .a = logits_, .b = h, .ta = Transpose::yes, .accumulate = accumulate});
    pass_.began_clusters = true;
  } else {
    const auto dcodebook = parameters_.product_gradient(codebook_);
    backend.run(
        Matmul{.c = dcodebook.c, .a = logits_, .b = h, .ta = Transpose::yes, .accumulate = dcodebook.accumulate});
  }
  backend.run(AddColumnSums{.out = parameters_.gradient(cluster_bias_), .x = logits_});
  backend.run(Matmul{.c = dh, .a = logits_, .b = clusters, .accumulate = Accumulate::no});
}

Tensor VqHead::input_branch(Tensor tokens) {
  return input_codes_ ? input_codes_->vectors(tokens, map_.whole()) : Tensor{};
}

void VqHead::input_backward(Tensor dx) {
  if (input_codes_) input_codes_->backward(dx);
}

void VqHead::forward(Tensor nll, Tensor h, Tensor targets) {
  const Tensor vectors = members_->vectors(Reuse::none);
  codes_forward(nll, h, targets, cluster_vectors());
  tensor_.backend().copy(cluster_nll_, nll);
  member_softmax_.forward(nll, h, vectors, token_bias());
}

void VqHead::begin_backward(MicroBatchPlace place) {
  pass_ = Pass{};
  pass_.began_clusters = !place.first;
  pass_.vectors = members_->vectors(Reuse::in_step);
  pass_.clusters = cluster_vectors();
  pass_.member_gradient = members_->begin_backward(place);
}

void VqHead::rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) {
  Backend& backend = tensor_.backend();
  codes_forward(nll, h, targets, pass_.clusters);
  codes_backward(dh, h, pass_.clusters, scale);
  MemberGradients gradients;
  gradients.dtoken_bias = token_bias_ ? parameters_.gradient(*token_bias_) : unused_gradient_;
  gradients.scale = scale;
  gradients.dh = dh;
  gradients.dmember_codebook = pass_.member_gradient;
  member_softmax_.forward_backward(nll, gradients, h, pass_.vectors, token_bias());
  if (commitment_ > 0) {
    const Tensor committed_to = averages_ ? averages_->means() : pass_.clusters.rows(0, clusters_);
    backend.run(Commitment{.penalty = penalty,
                           .dh = dh,
                           .h = h,
                           .codebook = committed_to,
                           .clusters = clusters_of_rows_,
                           .beta = commitment_,
                           .scale = scale});
  } else {
    backend.fill(penalty, 0.0f);
  }
}

void VqHead::end_backward(MicroBatchPlace place) {
  members_->end_backward(codebook_, place);
}

void VqHead::log_probs(Tensor out, Tensor h) {
  Backend& backend = tensor_.backend();
  const std::int64_t rows = h.extent(0);
  VQLM_ASSERT(rows <= rows_);
  if (map_.has_parts()) {
    throw Error(
        "log-probabilities by members of the embedding need the whole vocabulary on one rank: use parallel.tensor=1");
  }
  const Tensor vectors = members_->vectors(Reuse::none);
  const Tensor codes = code_log_probs_.rows(0, rows);
  backend.run(Matmul{.c = codes,
                     .a = h,
                     .b = cluster_vectors().rows(0, clusters_),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  backend.run(LogSoftmax{.logits = codes, .bias = parameters_.operand(cluster_bias_)});
  backend.run(MemberLogProbs{.log_probs = out,
                             .h = h,
                             .code_log_probs = codes,
                             .member_codebook = vectors,
                             .token_bias = token_bias(),
                             .map = map_.whole()});
}

}  // namespace vqlm
