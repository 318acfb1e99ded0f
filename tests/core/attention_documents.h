// Documents for tests of attention's masks.
#pragma once

#include <ostream>

#include "tests/core/op_testing.h"

namespace vqlm::testing {

/// A call of attention: its shape, and whether sequences are cut into documents.
struct AttentionCase {
  AttentionCase(const AttentionShape& of, bool cut = false) : shape(of), documents(cut) {}  // NOLINT: shapes are cases
  AttentionShape shape;
  bool documents;
};
inline std::ostream& operator<<(std::ostream& out, const AttentionCase& c) {
  return out << c.shape.batch << "x" << c.shape.seq_len;
}

/// "B1_T65_H4_2_D32_W7_documents".
inline std::string attention_case_name(const ::testing::TestParamInfo<AttentionCase>& info) {
  const AttentionShape& s = info.param.shape;
  std::string name = std::string("B").append(std::to_string(s.batch)) + "_T" + std::to_string(s.seq_len) + "_H" +
                     std::to_string(s.heads) + "_" + std::to_string(s.kv_heads) + "_D" + std::to_string(s.head_dim);
  if (s.window > 0) name += "_W" + std::to_string(s.window);
  if (s.scale > 0) name += "_scaled";
  return info.param.documents ? name + "_documents" : name;
}

/// (2, B, T): first position and end of each position's document, of 1 to 199 tokens and cut by the sequence's end.
inline HostI32 random_documents(const AttentionShape& shape) {
  HostI32 documents({2, shape.batch, shape.seq_len});
  const Philox rng(5, "documents");
  const std::int64_t positions = shape.batch * shape.seq_len;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t begin = 0, end = 0; begin < shape.seq_len; begin = end) {
      const auto length = static_cast<std::int64_t>(1 + rng.below(static_cast<std::uint64_t>(b * 1000 + begin), 199));
      end = std::min(shape.seq_len, begin + length);
      for (std::int64_t t = begin; t < end; ++t) {
        documents[b * shape.seq_len + t] = static_cast<std::int32_t>(begin);
        documents[positions + b * shape.seq_len + t] = static_cast<std::int32_t>(end);
      }
    }
  }
  return documents;
}

/// The first key that position t of sequence b sees.
inline std::int64_t first_seen(const AttentionShape& shape, const HostI32* documents, std::int64_t b, std::int64_t t) {
  const std::int64_t first = shape.window > 0 ? std::max<std::int64_t>(0, t + 1 - shape.window) : 0;
  return documents == nullptr ? first : std::max<std::int64_t>(first, (*documents)[b * shape.seq_len + t]);
}

}  // namespace vqlm::testing
