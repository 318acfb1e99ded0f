// A low-rank head as another program, or a run that goes on, can have it: dense.
#pragma once

#include "train/models/replaced_head.h"

namespace vqlm {

/// The low-rank head of `trunk` as the dense head with the matrix W = U A (V, d): the same logits, to rounding. Where the
/// embedding shares U and A, W is the embedding table and tied to the head.
class MultipliedHead : public ReplacedHead {
 public:
  /// `trunk` must have a low-rank head. Holds A in memory.
  explicit MultipliedHead(const ModelSource& trunk);

  std::optional<CodeMap> code_map() const override { return std::nullopt; }

  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override;

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override;

  std::string matrix_;             // the name of W, and of U in `trunk`
  std::int64_t rank_;              // r
  std::vector<float> projection_;  // A (r, d)
};

}  // namespace vqlm
