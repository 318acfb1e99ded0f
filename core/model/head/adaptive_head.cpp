#include "core/model/head/adaptive_head.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/tensor_arena.h"

namespace vqlm {
namespace {

/// A band's rows are gathered so many at a time: a tail band is asked for by a small part of them.
std::int64_t tail_rows_at_most(std::int64_t rows) {
  return std::min(rows, std::max<std::int64_t>(64, (rows + 3) / 4));
}

}  // namespace

AdaptiveHead::AdaptiveHead(const HeadContext& context, const AdaptiveHeadConfig& config, const CodeMap& map)
    : backend_(context.tensor.backend()),
      vocab_size_(context.model.vocab_size),
      d_model_(context.model.d_model),
      rows_(context.rows),
      bands_(adaptive_bands(config, vocab_size_, d_model_)),
      order_(map.cluster_of_token, map.clusters),
      band_of_token_(map.cluster_of_token),
      class_of_token_(map.cluster_of_token.size()) {
  VQLM_ASSERT(map.vocab_size == vocab_size_ && map.clusters == static_cast<std::int64_t>(bands_.size()));
  for (std::size_t band = 0; band < bands_.size(); ++band) {
    VQLM_ASSERT(order_.begin[band + 1] - order_.begin[band] == bands_[band].tokens);
    for (std::int32_t place = order_.begin[band]; place < order_.begin[band + 1]; ++place)
      class_of_token_[static_cast<std::size_t>(order_.members[static_cast<std::size_t>(place)])] =
          place - order_.begin[band];
  }
  add_softmaxes(context, config);
  allocate_workspace(context.trainable);
}

void AdaptiveHead::add_softmaxes(const HeadContext& context, const AdaptiveHeadConfig& config) {
  const auto tails = static_cast<std::int64_t>(bands_.size()) - 1;
  softmaxes_.emplace_back(context, BandSoftmax::Options{.prefix = "lm_head.",
                                                        .classes = head_words() + tails,
                                                        .width = d_model_,
                                                        .projected = false,
                                                        .bias = config.bias,
                                                        .rows_at_most = rows_});
  for (std::size_t band = 1; band < bands_.size(); ++band) {
    softmaxes_.emplace_back(context, BandSoftmax::Options{.prefix = fmt::format("lm_head.tails.{}.", band - 1),
                                                          .classes = bands_[band].tokens,
                                                          .width = bands_[band].width,
                                                          .projected = true,
                                                          .bias = config.bias,
                                                          .rows_at_most = tail_rows_at_most(rows_)});
  }
}

void AdaptiveHead::allocate_workspace(bool trainable) {
  std::int64_t rows = 0, logits = 0, z = 0;
  for (const BandSoftmax& softmax : softmaxes_) {
    rows = std::max(rows, softmax.chunk_rows());
    logits = std::max(logits, softmax.logit_numbers());
    z = std::max(z, softmax.z_numbers());
  }
  const std::int64_t tail_rows = tail_rows_at_most(rows_);
  const DType a = backend_.activation_dtype();
  TensorArena arena;
  arena.add(scratch_.logits, {logits}, a);
  arena.add(scratch_.statistics, {rows, 3}, DType::f32);
  arena.add(scratch_.lse, {rows}, DType::f32);
  arena.add(scratch_.z, {z}, a);
  if (trainable) arena.add(scratch_.dz, {z}, a);
  arena.add(tail_h_, {tail_rows, d_model_}, a);
  if (trainable) arena.add(tail_dh_, {tail_rows, d_model_}, a);
  arena.add(tail_nll_, {tail_rows}, DType::f32);
  for (Tensor* const ids : {&head_classes_, &rows_of_tails_, &classes_}) arena.add(*ids, {rows_}, DType::i32);
  storage_ = arena.allocate(backend_, MemoryUse::workspace);
  host_targets_.resize(static_cast<std::size_t>(rows_));
  band_begin_.resize(bands_.size() + 1);
}

HeadCost AdaptiveHead::cost() const {
  HeadCost cost{.code_bytes = vocab_size_ * static_cast<std::int64_t>(sizeof(std::int32_t))};
  for (std::size_t band = 0; band < bands_.size(); ++band) {
    cost.matrix_parameters += softmaxes_[band].matrix_parameters();
    if (softmaxes_[band].has_bias()) cost.bias_parameters += softmaxes_[band].classes();
    cost.multiply_adds += (band == 0 ? 1 : bands_[band].mass) * softmaxes_[band].multiply_adds();
  }
  return cost;
}

void AdaptiveHead::initialize(const std::vector<std::int64_t>& counts) {
  // Head words and bands start at the log of their mass, a band's members at that of their share in it: together the
  // unigram model, as all heads do.
  const std::vector<float> unigram = log_unigram(counts);
  std::vector<float> head;
  for (std::size_t band = 0; band < bands_.size(); ++band) {
    std::vector<float> members;
    double mass = 0;
    for (std::int32_t place = order_.begin[band]; place < order_.begin[band + 1]; ++place) {
      const auto token = static_cast<std::size_t>(order_.members[static_cast<std::size_t>(place)]);
      members.push_back(unigram[token]);
      mass += std::exp(static_cast<double>(unigram[token]));
    }
    if (band == 0) {
      head = std::move(members);
      continue;
    }
    const auto log_mass = static_cast<float>(std::log(mass));
    for (float& member : members) member -= log_mass;
    head.push_back(log_mass);
    softmaxes_[band].initialize(members);
  }
  softmaxes_.front().initialize(head);
}

void AdaptiveHead::expect_rows(std::vector<std::int32_t>& targets) const {
  std::size_t row = 0;
  double expected = 0;
  for (std::size_t band = 0; band < bands_.size(); ++band) {
    expected += bands_[band].mass * static_cast<double>(targets.size());
    const auto end = std::min(targets.size(), static_cast<std::size_t>(std::llround(expected)));
    for (; row < end; ++row) targets[row] = order_.members[static_cast<std::size_t>(order_.begin[band])];
  }
}

void AdaptiveHead::sort_rows(Tensor targets) {
  backend_.copy_to_host(host_targets_.data(), targets);
  if (!backend_.computes()) expect_rows(host_targets_);
  const auto band_of = [&](std::int32_t target) {
    VQLM_ASSERT(static_cast<std::size_t>(target) < band_of_token_.size());
    return static_cast<std::size_t>(band_of_token_[static_cast<std::size_t>(target)]);
  };
  band_begin_.assign(bands_.size() + 1, 0);
  for (const std::int32_t target : host_targets_) {
    if (target >= 0 && band_of(target) > 0) ++band_begin_[band_of(target) + 1];
  }
  for (std::size_t band = 1; band < band_begin_.size(); ++band) band_begin_[band] += band_begin_[band - 1];
  const std::int64_t of_tails = band_begin_.back();
  std::vector<std::int32_t> head(host_targets_.size(), -1), rows(static_cast<std::size_t>(of_tails)),
      classes(rows.size());
  std::vector<std::int64_t> next = band_begin_;
  for (std::size_t row = 0; row < host_targets_.size(); ++row) {
    if (host_targets_[row] < 0) continue;
    const std::size_t band = band_of(host_targets_[row]);
    const std::int32_t of_token = class_of_token_[static_cast<std::size_t>(host_targets_[row])];
    head[row] = band == 0 ? of_token : static_cast<std::int32_t>(head_words() + static_cast<std::int64_t>(band) - 1);
    if (band == 0) continue;
    const auto place = static_cast<std::size_t>(next[band]++);
    rows[place] = static_cast<std::int32_t>(row);
    classes[place] = of_token;
  }
  backend_.copy_from_host(head_classes_, head.data());
  if (of_tails == 0) return;
  backend_.copy_from_host(rows_of_tails_.rows(0, of_tails), rows.data());
  backend_.copy_from_host(classes_.rows(0, of_tails), classes.data());
}

void AdaptiveHead::run(Tensor nll, Tensor dh, Tensor h, Tensor targets, float scale) {
  sort_rows(targets);
  BandSoftmax& head = softmaxes_.front();
  for (std::int64_t begin = 0; begin < rows_; begin += head.chunk_rows()) {
    const std::int64_t count = std::min(head.chunk_rows(), rows_ - begin);
    head.run(nll.rows(begin, count), dh ? dh.rows(begin, count) : Tensor{}, Accumulate::no, h.rows(begin, count),
             head_classes_.rows(begin, count), scale, scratch_);
  }
  for (std::size_t band = 1; band < bands_.size(); ++band) run_tail(band, nll, dh, h, scale);
}

void AdaptiveHead::run_tail(std::size_t band, Tensor nll, Tensor dh, Tensor h, float scale) {
  BandSoftmax& softmax = softmaxes_[band];
  for (std::int64_t begin = band_begin_[band]; begin < band_begin_[band + 1]; begin += softmax.chunk_rows()) {
    const std::int64_t count = std::min(softmax.chunk_rows(), band_begin_[band + 1] - begin);
    const Tensor rows = rows_of_tails_.rows(begin, count), own_nll = tail_nll_.rows(0, count);
    const Tensor own_h = tail_h_.rows(0, count), own_dh = dh ? tail_dh_.rows(0, count) : Tensor{};
    backend_.run(EmbeddingForward{.out = own_h, .ids = rows, .table = h, .first_row = 0});
    if (dh) backend_.run(EmbeddingForward{.out = own_dh, .ids = rows, .table = dh, .first_row = 0});
    softmax.run(own_nll, own_dh, Accumulate::yes, own_h, classes_.rows(begin, count), scale, scratch_);
    if (dh) backend_.run(CopyRows{.table = dh, .from = own_dh, .rows = rows});
    backend_.run(ScatterAddRows{.dtable = nll.view({rows_, 1}), .dout = own_nll.view({count, 1}), .rows = rows});
  }
}

void AdaptiveHead::forward(Tensor nll, Tensor h, Tensor targets) {
  run(nll, Tensor{}, h, targets, 0.0f);
}

void AdaptiveHead::rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) {
  run(nll, dh, h, targets, scale);
  backend_.fill(penalty, 0.0f);
}

void AdaptiveHead::host_log_probs(float* out, Tensor h) {
  if (log_prob_rows_ == 0) {
    log_prob_rows_ = rows_;
    std::int64_t most = 0;
    for (const BandSoftmax& softmax : softmaxes_) {
      log_prob_rows_ = std::min(log_prob_rows_, softmax.chunk_rows());
      most = std::max(most, softmax.classes());
    }
    row_storage_ =
        backend_.allocate(static_cast<std::size_t>(log_prob_rows_ * most) * sizeof(float), MemoryUse::workspace);
    head_log_probs_.resize(static_cast<std::size_t>(log_prob_rows_ * softmaxes_.front().classes()));
    band_log_probs_.resize(static_cast<std::size_t>(log_prob_rows_ * most));
  }
  const auto vocab = static_cast<std::size_t>(vocab_size_);
  const auto head_classes = static_cast<std::size_t>(softmaxes_.front().classes());
  for (std::int64_t begin = 0; begin < h.extent(0); begin += log_prob_rows_) {
    const std::int64_t count = std::min(log_prob_rows_, h.extent(0) - begin);
    for (std::size_t band = 0; band < bands_.size(); ++band) {
      BandSoftmax& softmax = softmaxes_[band];
      std::vector<float>& values = band == 0 ? head_log_probs_ : band_log_probs_;
      const Tensor device = row_storage_.view({count, softmax.classes()});
      softmax.log_probs(device, h.rows(begin, count), scratch_);
      backend_.copy_to_host(values.data(), device);
      const auto first = static_cast<std::size_t>(order_.begin[band]);
      const auto members = static_cast<std::size_t>(bands_[band].tokens);
      for (std::size_t row = 0; row < static_cast<std::size_t>(count); ++row) {
        float* const to = out + (static_cast<std::size_t>(begin) + row) * vocab;
        const float* const from = values.data() + row * static_cast<std::size_t>(softmax.classes());
        const float of_band =
            band == 0 ? 0 : head_log_probs_[row * head_classes + static_cast<std::size_t>(head_words()) + band - 1];
        for (std::size_t i = 0; i < members; ++i)
          to[static_cast<std::size_t>(order_.members[first + i])] = of_band + from[i];
      }
    }
  }
}

void AdaptiveHead::log_probs(Tensor out, Tensor h) {
  std::vector<float> values(static_cast<std::size_t>(out.numel()));
  host_log_probs(values.data(), h);
  backend_.copy_from_host(out, values.data());
}

std::vector<TokenLogProb> AdaptiveHead::most_probable(Tensor h, std::int64_t count, double mass) {
  row_.resize(static_cast<std::size_t>(vocab_size_));
  host_log_probs(row_.data(), h);
  return most_probable_of(row_, count, mass);
}

std::int32_t AdaptiveHead::sample(Tensor h, float temperature, const std::function<double()>& uniform) {
  row_.resize(static_cast<std::size_t>(vocab_size_));
  host_log_probs(row_.data(), h);
  return sample_of(row_, temperature, uniform, scaled_, weights_);
}

}  // namespace vqlm
