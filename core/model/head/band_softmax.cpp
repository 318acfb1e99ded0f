#include "core/model/head/band_softmax.h"

#include <cmath>

#include "core/model/head/dense_head.h"
#include "core/model/head/low_rank_head.h"

namespace vqlm {

BandSoftmax::BandSoftmax(const HeadContext& context, const Options& options)
    : backend_(context.tensor.backend()),
      parameters_(context.parameters),
      options_(options),
      d_model_(context.model.d_model),
      chunk_rows_(logit_chunk_rows(backend_, logit_width(), options.rows_at_most)) {
  VQLM_ASSERT(options.projected || options.width == d_model_);
  const int bucket = context.buckets.replicated;
  // A projected band starts as a low-rank head does: W A, and the first logits, are as large as a dense matrix of 0.02.
  const float stddev = options.projected ? low_rank_stddev(d_model_, options.width) : 0.02f;
  Parameter weight =
      replicated_parameter(options.prefix + "weight", {options.classes, options.width}, stddev, ParameterRole::head);
  weight.padded_rows = logit_width();
  // Every row goes through the head words' softmax, so that its product comes in every micro-batch; a tail may have no rows.
  if (!options.projected) weight.gradient_start = GradientStart::product;
  weight_ = parameters_.add(bucket, {weight});
  if (options.projected) {
    projection_ = parameters_.add(
        bucket, {replicated_parameter(options.prefix + "projection.weight", {options.width, d_model_},
                                      1 / std::sqrt(static_cast<float>(d_model_)), ParameterRole::head)});
  }
  if (options.bias) {
    bias_ = parameters_.add(
        bucket, {replicated_parameter(options.prefix + "bias", {options.classes}, 0.0f, ParameterRole::head)});
  }
}

std::int64_t BandSoftmax::matrix_parameters() const {
  return options_.classes * options_.width + (options_.projected ? options_.width * d_model_ : 0);
}

void BandSoftmax::initialize(const std::vector<float>& bias) {
  if (bias_) parameters_.set_from_whole(*bias_, bias);
}

Tensor BandSoftmax::z_of(Tensor h, const BandScratch& scratch) {
  if (!projection_) return h;
  const Tensor z = scratch.z.rows(0, h.extent(0) * options_.width).view({h.extent(0), options_.width});
  backend_.run(Matmul{
      .c = z, .a = h, .b = parameters_.operand(*projection_), .tb = Transpose::yes, .accumulate = Accumulate::no});
  return z;
}

void BandSoftmax::run(Tensor nll, Tensor dh, Accumulate accumulate_dh, Tensor h, Tensor classes, float scale,
                      const BandScratch& scratch) {
  const std::int64_t count = h.extent(0);
  VQLM_ASSERT(count > 0 && count <= chunk_rows_);
  const Tensor logits = scratch.logits.rows(0, count * logit_width()).view({count, logit_width()});
  const Tensor statistics = scratch.statistics.rows(0, count), lse = scratch.lse.rows(0, count);
  const Tensor weight = parameters_.padded_operand(weight_);
  const Tensor z = z_of(h, scratch);
  backend_.run(Matmul{.c = logits, .a = z, .b = weight, .tb = Transpose::yes, .accumulate = Accumulate::no});
  const SoftmaxCrossEntropy op{.nll = nll,
                               .lse = lse,
                               .dbias = dh && bias_ ? parameters_.gradient(*bias_) : Tensor{},
                               .logits = logits,
                               .statistics = statistics,
                               .bias = bias(),
                               .targets = classes,
                               .classes = {.count = options_.classes},
                               .scale = scale};
  if (!dh) {
    backend_.run(op.statistics_step());
    backend_.run(op.combine_step());
    return;
  }
  backend_.run(op);
  const auto dweight = parameters_.product_gradient(weight_);
  backend_.run(Matmul{.c = dweight.c, .a = logits, .b = z, .ta = Transpose::yes, .accumulate = dweight.accumulate});
  if (!projection_) {
    backend_.run(Matmul{.c = dh, .a = logits, .b = weight, .accumulate = accumulate_dh});
    return;
  }
  const Tensor dz = scratch.dz.rows(0, z.numel()).view(z.shape());
  backend_.run(Matmul{.c = dz, .a = logits, .b = weight, .accumulate = Accumulate::no});
  backend_.run(Matmul{
      .c = parameters_.gradient(*projection_), .a = dz, .b = h, .ta = Transpose::yes, .accumulate = Accumulate::yes});
  backend_.run(Matmul{.c = dh, .a = dz, .b = parameters_.operand(*projection_), .accumulate = accumulate_dh});
}

void BandSoftmax::log_probs(Tensor out, Tensor h, const BandScratch& scratch) {
  backend_.run(Matmul{.c = out,
                      .a = z_of(h, scratch),
                      .b = parameters_.operand(weight_),
                      .tb = Transpose::yes,
                      .accumulate = Accumulate::no});
  backend_.run(LogSoftmax{.logits = out, .bias = bias()});
}

}  // namespace vqlm
