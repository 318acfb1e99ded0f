// What the structs of core/ops share. An op is a value: a struct with named operands whose comment is its contract, and
//   static constexpr std::string_view name;
//   void check(DType a) const;  // asserts shapes and dtypes, for every back end; a is A below
//   OpCost cost() const;        // what every machine must do for it
// Backend::run checks and enqueues it. core/ops/X.h is implemented in core/cpu/X.cpp and core/cuda/X.cu.
//
// Conventions, said once:
// - Outputs come first. "overwritten": earlier contents do not matter. "accumulates": the result is added to what is
//   there, so gradients add up over micro-batches. An operand that may be absent is Tensor{} unless it is given; one that
//   must be there has no default, so that the compiler finds a call without it (-Wmissing-field-initializers).
// - Tensors are contiguous, f32 unless said, ids are i32.
// - A is the back end's activation_dtype(): f32 on the host, bf16 on a GPU. Activations, their gradients, logits and the
//   matrices that ops read are A; gains, biases, statistics, log-likelihoods and gradients of parameters are f32. Sums are
//   made in f32 or better, whatever A.
// - Operands must not overlap unless "may alias" is said.
// - The result of an op is the same in every run with the same inputs, thread count and device.
// - N rows (tokens), d model width, V vocabulary, K codes (clusters), G groups, Q sub-codes per group.
#pragma once

#include <initializer_list>
#include <source_location>
#include <string_view>

#include "core/tensor.h"

namespace vqlm {

enum class Accumulate { no, yes };

/// What an op must do, whatever the machine.
struct OpCost {
  double flops = 0;       // of products: causal half, recomputation not counted; 0 for ops that are bound by bytes
  double bytes_read = 0;  // of memory: each operand once
  double bytes_written = 0;
};

/// The cost of an op that reads and writes whole operands once; absent ones cost nothing.
OpCost cost_of(std::initializer_list<Tensor> read, std::initializer_list<Tensor> written, double flops = 0);

/// Asserts that each tensor that is present has the dtype; a failure names the caller's line.
void check_dtype(DType dtype, std::initializer_list<Tensor> tensors,
                 std::source_location caller = std::source_location::current());

}  // namespace vqlm
