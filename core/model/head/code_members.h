// Members scored with vectors that are put together from a shared codebook (product codes): u_v has G parts of d / G numbers,
// part g the row q_g(v) of the Q that codebook g has.
#pragma once

#include "core/model/head/members.h"

namespace vqlm {

class CodeMembers : public Members {
 public:
  /// Adds "vq_head.member_codebook" (G, Q, d / G), replicated.
  CodeMembers(const HeadContext& context, const CodeMembersConfig& config);

  std::int64_t width() const override { return d_model_; }
  std::int64_t parameters() const override { return codes_ * d_model_; }
  Tensor vectors(Reuse /*reuse*/) override { return store_.operand(codebook_); }
  Tensor begin_backward(MicroBatchPlace /*place*/) override { return store_.gradient(codebook_); }

 private:
  ParameterStore& store_;
  std::int64_t d_model_, codes_;
  ParameterId codebook_;
};

}  // namespace vqlm
