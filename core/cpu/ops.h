// The CPU ops: core/cpu/X.cpp specialises run() for the ops of core/ops/X.h.
#pragma once

#include "core/backend.h"

namespace vqlm::cpu {

/// Does one op, with the threads that OpenMP gives. An op without a specialisation does not link.
template <class O>
void run(const O& op);

std::uint64_t fingerprint(Tensor x);

void sort_rows_by_cluster(Tensor clusters, Tensor order, Tensor row_begin, Tensor targets,
                          const CodeMapView& map);
void member_entropy(Tensor nll, const Backend::MemberGradients& gradients, Tensor h, Tensor targets,
                    Tensor order, Tensor row_begin, Tensor member_codebook, Tensor token_bias,
                    const CodeMapView& map);
void member_log_probs(Tensor log_probs, Tensor h, Tensor code_log_probs, Tensor member_codebook,
                      Tensor token_bias, const CodeMapView& map);
void cluster_log_probs(Tensor out, Tensor h, Tensor rows, Tensor clusters, Tensor member_codebook,
                       Tensor token_bias, const CodeMapView& map);
void add_member_means(Tensor out, Tensor codebook, Tensor members, const CodeMapView& map);
void add_member_means_backward(Tensor dcodebook, Tensor dmembers, Tensor dout, const CodeMapView& map);
void commitment(Tensor penalty, Tensor dh, Tensor h, Tensor codebook, Tensor clusters, float beta,
                float scale);
void codes_from_averages(Tensor codebook, Tensor sums, Tensor counts, float scale);

}  // namespace vqlm::cpu
