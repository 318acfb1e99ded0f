// Vector kernels over one row of scores, shared by softmax cross entropy, the VQ head's members and attention. NaN in
// an operand gives NaN in the result, so that a diverged run shows in its loss.
#pragma once

#include <cstdint>

namespace vqlm::cpu {

/// Maximum of a row and the sum of exp(x - maximum): its log-sum-exp in a form that combines over parts.
struct RowStatistics {
  float maximum;
  float sum;
};

/// Of x + bias (n), or of x where bias is null; n >= 1. Blocks of 1024 bound the rounding error of the sum to about
/// (1024 / lanes + n / 1024) ulp.
RowStatistics row_statistics(const float* x, const float* bias, std::int64_t n);

/// x = scale * exp(x + bias - lse); bias may be null.
void row_softmax(float* x, const float* bias, float lse, float scale, std::int64_t n);

/// x = x + bias - shift; bias may be null.
void row_shift(float* x, const float* bias, float shift, std::int64_t n);

/// y = cap * tanh((x + bias) / cap), cap > 0; bias may be null, and y may be x.
void row_cap(float* y, const float* x, const float* bias, float cap, std::int64_t n);

/// Its backward from its result: dy = dy * (1 - (y / cap)^2).
void row_cap_gradient(float* dy, const float* y, float cap, std::int64_t n);

/// max(x); n >= 1.
float row_maximum(const float* x, std::int64_t n);

/// x = exp(scale * x - shift); returns the sum of the results.
float row_exp(float* x, float scale, float shift, std::int64_t n);

/// Softmax's backward for one row of attention: scores become p = exp(scale * score - lse), and dscores, which hold
/// dp, become p * (dp - delta). arXiv 2205.14135, algorithm 4.
void row_attention_gradient(float* scores, float* dscores, float scale, float lse, float delta, std::int64_t n);

/// sum(a * b).
float row_dot(const float* a, const float* b, std::int64_t n);

/// y = factor * y.
void row_scale(float* y, float factor, std::int64_t n);

/// y += factor * x.
void row_add(float* y, const float* x, float factor, std::int64_t n);

/// y += factor * (a - b); returns sum((a - b)^2). y may be null.
float row_add_difference(float* y, const float* a, const float* b, float factor, std::int64_t n);

}  // namespace vqlm::cpu
