#include "core/ops/cross_entropy.h"

namespace vqlm {
namespace {

/// What the sharded ops share.
void check_classes(DType a, const Tensor& logits, const Tensor& bias, const Tensor& targets,
                   const ClassShard& classes) {
  check_dtype(a, {logits});
  check_dtype(DType::f32, {bias});
  check_dtype(DType::i32, {targets});
  VQLM_ASSERT(logits.rank() == 2 && targets.numel() == logits.extent(0));
  VQLM_ASSERT(classes.count <= logits.extent(1) && (!bias || bias.numel() == classes.count));
}

}  // namespace

void SoftmaxStatistics::check(DType a) const {
  check_classes(a, logits, bias, targets, classes);
  check_dtype(DType::f32, {statistics});
  VQLM_ASSERT(statistics.shape() == Shape({logits.extent(0), 3}) && softcap >= 0);
}

OpCost SoftmaxStatistics::cost() const {
  return cost_of({logits, bias, targets}, {statistics});
}

void SoftmaxCombine::check(DType /*a*/) const {
  check_dtype(DType::f32, {nll, lse, statistics, penalty});
  check_dtype(DType::i32, {targets});
  VQLM_ASSERT(statistics.rank() == 3 && statistics.extent(0) > 0 && statistics.extent(2) == 3);
  const std::int64_t rows = statistics.extent(1);
  VQLM_ASSERT(nll.numel() == rows && lse.numel() == rows && targets.numel() == rows);
  VQLM_ASSERT(penalty ? penalty.numel() == rows : z_loss == 0);
}

OpCost SoftmaxCombine::cost() const {
  return cost_of({statistics, targets}, {nll, lse, penalty});
}

void SoftmaxGradient::check(DType a) const {
  check_classes(a, logits, bias, targets, classes);
  check_dtype(DType::f32, {lse});
  VQLM_ASSERT(lse.numel() == logits.extent(0) && softcap >= 0);
}

OpCost SoftmaxGradient::cost() const {
  return cost_of({logits, bias, lse, targets}, {logits});
}

SoftmaxStatistics SoftmaxCrossEntropy::statistics_step() const {
  return {.statistics = statistics,
          .logits = logits,
          .bias = bias,
          .targets = targets,
          .classes = classes,
          .softcap = softcap};
}

SoftmaxCombine SoftmaxCrossEntropy::combine_step() const {
  return {.nll = nll,
          .lse = lse,
          .statistics = statistics.view({1, logits.extent(0), 3}),
          .targets = targets,
          .penalty = penalty,
          .z_loss = penalty ? z_loss : 0};
}

SoftmaxGradient SoftmaxCrossEntropy::gradient_step() const {
  return {.logits = logits,
          .bias = bias,
          .lse = lse,
          .targets = targets,
          .classes = classes,
          .scale = scale,
          .z_loss = z_loss,
          .softcap = softcap};
}

void SoftmaxCrossEntropy::check(DType a) const {
  statistics_step().check(a);
  combine_step().check(a);
  gradient_step().check(a);
  check_dtype(DType::f32, {dbias});
  VQLM_ASSERT(classes.first == 0 && (!dbias || dbias.numel() == classes.count));
}

OpCost SoftmaxCrossEntropy::cost() const {
  return cost_of({logits, bias, targets, dbias}, {nll, lse, penalty, logits, dbias});
}

void LogSoftmax::check(DType /*a*/) const {
  check_dtype(DType::f32, {logits, bias});
  VQLM_ASSERT(logits.rank() == 2 && logits.extent(1) > 0 && (!bias || bias.numel() == logits.extent(1)));
  VQLM_ASSERT(softcap >= 0);
}

OpCost LogSoftmax::cost() const {
  return cost_of({logits, bias}, {logits});
}

}  // namespace vqlm
