#include "train/models/multiplied_head.h"

#include <algorithm>

namespace vqlm {

MultipliedHead::MultipliedHead(const ModelSource& trunk)
    : ReplacedHead(trunk, DenseHeadConfig{.bias = has_bias(trunk.head())},
                   trunk.model().tie_embeddings ? Tied::yes : Tied::no),
      matrix_(trunk.model().tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"),
      rank_(std::get<LowRankHeadConfig>(trunk.head()).rank),
      projection_(read_whole(trunk, "lm_head.projection.weight")) {}

std::vector<float> MultipliedHead::read_head(const std::string& name, const Shape& offset, const Shape& extent) const {
  return trunk().read(name, offset, extent);  // the bias
}

std::vector<float> MultipliedHead::read(const std::string& name, const Shape& offset, const Shape& extent) const {
  if (name != matrix_) return ReplacedHead::read(name, offset, extent);
  const std::vector<float> classes = trunk().read(name, {offset[0], 0}, {extent[0], rank_});
  const std::int64_t d = model().d_model, columns = extent[1];
  std::vector<float> rows(static_cast<std::size_t>(extent.numel()));
  std::vector<double> sums(static_cast<std::size_t>(columns));
  for (std::int64_t v = 0; v < extent[0]; ++v) {
    std::ranges::fill(sums, 0.0);
    for (std::int64_t i = 0; i < rank_; ++i) {
      const double u = static_cast<double>(classes[static_cast<std::size_t>(v * rank_ + i)]);
      const float* const a = projection_.data() + i * d + offset[1];
      for (std::int64_t j = 0; j < columns; ++j) sums[static_cast<std::size_t>(j)] += u * static_cast<double>(a[j]);
    }
    for (std::int64_t j = 0; j < columns; ++j) {
      rows[static_cast<std::size_t>(v * columns + j)] = static_cast<float>(sums[static_cast<std::size_t>(j)]);
    }
  }
  return rows;
}

}  // namespace vqlm
