// The ops of the CUDA back end: core/cuda/X.cu specialises run() for the ops of core/ops/X.h, with A = bf16.
#pragma once

#include "core/backend.h"
#include "core/cuda/context.h"

namespace vqlm::cuda {

/// Enqueues one op on context.stream and returns; launches are checked. An op without a specialisation does not link.
template <class O>
void run(const Context& context, const O& op);

// elementwise.cu
void fill(const Context& context, Tensor x, float value);
void round_to_activation(const Context& context, Tensor dst, Tensor src);

// fingerprint.cu
/// Where in the workspace the device puts x's fingerprint.
const std::uint64_t* fingerprint(const Context& context, Tensor x);

void sort_rows_by_cluster(const Context& context, Tensor clusters, Tensor order, Tensor row_begin,
                          Tensor targets, const CodeMapView& map);
void member_entropy(const Context& context, Tensor nll, const Backend::MemberGradients& gradients, Tensor h,
                    Tensor targets, Tensor order, Tensor row_begin, Tensor member_codebook, Tensor token_bias,
                    const CodeMapView& map);
void member_log_probs(const Context& context, Tensor log_probs, Tensor h, Tensor code_log_probs,
                      Tensor member_codebook, Tensor token_bias, const CodeMapView& map);
void cluster_log_probs(const Context& context, Tensor out, Tensor h, Tensor rows, Tensor clusters,
                       Tensor member_codebook, Tensor token_bias, const CodeMapView& map);
void commitment(const Context& context, Tensor penalty, Tensor dh, Tensor h, Tensor codebook, Tensor clusters,
                float beta, float scale);
void codes_from_averages(const Context& context, Tensor codebook, Tensor sums, Tensor counts, float scale);

// member_means.cu
void add_member_means(const Context& context, Tensor out, Tensor codebook, Tensor members,
                      const CodeMapView& map);
void add_member_means_backward(const Context& context, Tensor dcodebook, Tensor dmembers, Tensor dout,
                               const CodeMapView& map);

}  // namespace vqlm::cuda
