#include "core/model/head/low_rank_head.h"

#include <cmath>

#include "core/tensor_arena.h"

namespace vqlm {
namespace {

/// A's rows are of length 1 and nearly orthogonal when they start with the standard deviation 1 / sqrt(d), so that A h has the
/// unit variance of h; U's then makes U A, and the first logits, as large as a dense head's matrix of 0.02 and its logits.
float projection_stddev(std::int64_t d) {
  return 1 / std::sqrt(static_cast<float>(d));
}

Parameter projection_of(std::int64_t rank, std::int64_t d) {
  Parameter projection =
      replicated_parameter("lm_head.projection.weight", {rank, d}, projection_stddev(d), ParameterRole::head);
  projection.gradient_start = GradientStart::product;
  return projection;
}

}  // namespace

float low_rank_stddev(std::int64_t d_model, std::int64_t rank) {
  return 0.02f * std::sqrt(static_cast<float>(d_model) / static_cast<float>(rank));
}

LowRankHead::LowRankHead(const HeadContext& context, const LowRankHeadConfig& config,
                         std::optional<ParameterId> tied_table)
    : backend_(context.tensor.backend()),
      parameters_(context.parameters),
      classes_(context, {.bias = config.bias, .z_loss = config.z_loss}, tied_table, config.rank,
               low_rank_stddev(context.model.d_model, config.rank)),
      projection_(parameters_.add(context.buckets.replicated, {projection_of(config.rank, context.model.d_model)})) {
  const DType a = backend_.activation_dtype();
  TensorArena arena;
  arena.add(projected_, {context.rows, config.rank}, a);
  if (context.trainable) arena.add(projected_gradient_, {context.rows, config.rank}, a);
  storage_ = arena.allocate(backend_, MemoryUse::workspace);
}

HeadCost LowRankHead::cost() const {
  HeadCost cost = classes_.cost();
  const std::int64_t numbers = parameters_.global_count(projection_, 1);
  cost.matrix_parameters += numbers;
  cost.multiply_adds += static_cast<double>(numbers);
  return cost;
}

Tensor LowRankHead::projected(Tensor h) {
  VQLM_ASSERT(h.extent(0) <= projected_.extent(0));
  const Tensor rows = projected_.rows(0, h.extent(0));
  backend_.run(Matmul{
      .c = rows, .a = h, .b = parameters_.operand(projection_), .tb = Transpose::yes, .accumulate = Accumulate::no});
  return rows;
}

void LowRankHead::forward(Tensor nll, Tensor h, Tensor targets) {
  classes_.forward(nll, projected(h), targets);
}

void LowRankHead::rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) {
  const Tensor dz = projected_gradient_;
  classes_.rows_forward_backward(nll, penalty, dz, projected(h), targets, scale);
  const auto dprojection = parameters_.product_gradient(projection_);
  backend_.run(Matmul{.c = dprojection.c, .a = dz, .b = h, .ta = Transpose::yes, .accumulate = dprojection.accumulate});
  backend_.run(Matmul{.c = dh, .a = dz, .b = parameters_.operand(projection_), .accumulate = Accumulate::no});
}

void LowRankHead::log_probs(Tensor out, Tensor h) {
  classes_.log_probs(out, projected(h));
}

std::vector<TokenLogProb> LowRankHead::most_probable(Tensor h, std::int64_t count, double mass) {
  return classes_.most_probable(projected(h), count, mass);
}

std::int32_t LowRankHead::sample(Tensor h, float temperature, const std::function<double()>& uniform) {
  return classes_.sample(projected(h), temperature, uniform);
}

}  // namespace vqlm
