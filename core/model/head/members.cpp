#include "core/model/head/members.h"

#include "core/model/head/code_members.h"
#include "core/model/head/embedding_members.h"

namespace vqlm {

std::unique_ptr<Members> make_members(const HeadContext& context, const VqHeadConfig& head, const DeviceCodeMap& map) {
  if (const auto* rows = std::get_if<EmbeddingMembersConfig>(&head.members))
    return std::make_unique<EmbeddingMembers>(context, *rows, map);
  if (const auto* codes = std::get_if<CodeMembersConfig>(&head.members))
    return std::make_unique<CodeMembers>(context, *codes);
  return std::make_unique<Members>();
}

}  // namespace vqlm
