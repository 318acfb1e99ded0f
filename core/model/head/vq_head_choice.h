// Working memory of VqHead::most_probable() and sample().
#pragma once

#include <vector>

#include "core/backend.h"
#include "core/model/head/cluster_search.h"
#include "core/model/head/code_map.h"

namespace vqlm {

struct VqHeadChoice {
  ClusterSearch search;
  Buffer storage;
  Tensor codes;                // (1, K) f32
  Tensor rows_of_h, clusters;  // (most) i32: the operands of cluster_log_probs; the first stays 0
  Tensor member_rows;          // (most, L) f32
  std::vector<float> host_codes, host_rows;

  VqHeadChoice(Backend& backend, MemberOrder order, std::int64_t cluster_count, std::int64_t largest);
  VqHeadChoice(const VqHeadChoice&) = delete;
  VqHeadChoice& operator=(const VqHeadChoice&) = delete;
};

}  // namespace vqlm
