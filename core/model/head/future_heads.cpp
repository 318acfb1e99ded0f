#include "core/model/head/future_heads.h"

#include <string>

#include "core/tensor_arena.h"

namespace vqlm {

FutureHeads::FutureHeads(const HeadContext& context, const FutureHeadsConfig& config)
    : backend_(context.tensor.backend()), parameters_(context.parameters), weight_(config.weight) {
  const std::int64_t d = context.model.d_model;
  for (int j = 0; j < config.heads; ++j) {
    Parameter weight = replicated_parameter(std::string(future_heads_prefix) + std::to_string(j) + ".weight", {d, d},
                                            0.0f, ParameterRole::head);
    weight.gradient_start = GradientStart::product;
    weights_.push_back(parameters_.add(context.buckets.replicated, {weight}));
  }
  const DType a = backend_.activation_dtype();
  TensorArena arena;
  arena.add(z_, {context.rows, d}, a);
  arena.add(hidden_, {context.rows, d}, a);
  if (context.trainable) {
    arena.add(gradient_, {context.rows, d}, a);
    arena.add(penalty_, {context.rows}, DType::f32);
  }
  storage_ = arena.allocate(backend_, MemoryUse::workspace);
}

HeadCost FutureHeads::with_cost(HeadCost of_head) const {
  const std::int64_t numbers = parameters_.global_count(weights_.front(), static_cast<int>(count()));
  of_head.matrix_parameters += numbers;
  of_head.multiply_adds = of_head.multiply_adds * static_cast<double>(1 + count()) + static_cast<double>(numbers);
  return of_head;
}

Tensor FutureHeads::hidden(std::int64_t j, Tensor h) {
  VQLM_ASSERT(j >= 0 && j < count() && h.extent(0) <= hidden_.extent(0));
  const Tensor z = z_.rows(0, h.extent(0)), hidden = hidden_.rows(0, h.extent(0));
  const Tensor weight = parameters_.operand(weights_[static_cast<std::size_t>(j)]);
  backend_.run(Matmul{.c = z, .a = h, .b = weight, .tb = Transpose::yes, .accumulate = Accumulate::no});
  backend_.run(SiluResidualForward{.y = hidden, .x = h, .z = z});
  return hidden;
}

void FutureHeads::forward(OutputHead& head, Tensor nll, Tensor h, Tensor targets) {
  const std::int64_t rows = h.extent(0);
  for (std::int64_t j = 0; j < count(); ++j) {
    head.forward(nll.rows(j, 1).view({rows}), hidden(j, h), targets.rows(j, 1).view({rows}));
  }
}

void FutureHeads::forward_backward(OutputHead& head, Tensor nll, Tensor dh, Tensor h, Tensor targets, float scale) {
  const std::int64_t rows = h.extent(0);
  const float of_one = scale * weight_ / static_cast<float>(count());
  for (std::int64_t j = 0; j < count(); ++j) {
    const ParameterId id = weights_[static_cast<std::size_t>(j)];
    head.rows_forward_backward(nll.rows(j, 1).view({rows}), penalty_, gradient_, hidden(j, h),
                               targets.rows(j, 1).view({rows}), of_one);
    backend_.run(Add{.out = dh, .a = dh, .b = gradient_});
    backend_.run(SiluResidualBackward{.dz = z_, .dy = gradient_, .z = z_});
    const auto dweight = parameters_.product_gradient(id);
    backend_.run(Matmul{.c = dweight.c, .a = z_, .b = h, .ta = Transpose::yes, .accumulate = dweight.accumulate});
    backend_.run(Matmul{.c = dh, .a = z_, .b = parameters_.operand(id), .accumulate = Accumulate::yes});
  }
}

}  // namespace vqlm
