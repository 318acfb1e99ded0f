#include "core/model/head/code_members.h"

namespace vqlm {

CodeMembers::CodeMembers(const HeadContext& context, const CodeMembersConfig& config)
    : store_(context.parameters), d_model_(context.model.d_model), codes_(config.codes) {
  VQLM_ASSERT(config.groups > 0 && d_model_ % config.groups == 0);
  const Shape shape{config.groups, codes_, d_model_ / config.groups};
  codebook_ = store_.add(context.buckets.matrices,
                         {replicated_parameter("vq_head.member_codebook", shape, 0.02f, ParameterRole::table)});
}

}  // namespace vqlm
