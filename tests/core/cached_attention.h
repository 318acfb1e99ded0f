// What tests of attention_cached share: a sequence in parts, and how far two computations of its attention may differ.
#pragma once

#include <ostream>
#include <vector>

#include "tests/core/attention_documents.h"

namespace vqlm::testing {

/// A sequence of the sum of `parts` positions, given to attention_cached part by part.
struct CachedCase {
  const char* name;
  AttentionShape shape;  // seq_len is filled in
  std::vector<std::int64_t> parts;
  bool documents = false;  // sequences are cut into some

  AttentionShape whole() const {
    AttentionShape result = shape;
    for (const std::int64_t rows : parts) result.seq_len += rows;
    return result;
  }
  AttentionShape part(std::size_t index) const {
    AttentionShape result = shape;
    result.seq_len = parts[index];
    return result;
  }
};

/// Documents (2, B, T) with room for `capacity` positions.
inline HostI32 with_capacity(const HostI32& documents, std::int64_t capacity) {
  const std::int64_t batch = documents.shape()[1], length = documents.shape()[2];
  HostI32 wide({2, batch, capacity}, -1);
  for (std::int64_t i = 0; i < documents.size(); ++i) wide[i / length * capacity + i % length] = documents[i];
  return wide;
}

inline std::ostream& operator<<(std::ostream& out, const CachedCase& c) {
  return out << c.name;
}

/// Rows [begin, begin + count) of every sequence of x (B, T, n).
inline HostF32 rows_of_sequences(const HostF32& x, std::int64_t begin, std::int64_t count) {
  const std::int64_t batch = x.shape()[0], length = x.shape()[1], n = x.shape()[2];
  HostF32 rows({batch, count, n});
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t i = 0; i < count * n; ++i) rows[b * count * n + i] = x[(b * length + begin) * n + i];
  }
  return rows;
}

/// For each element of attention's output for qkv (B, T, row): sum_j p_j |v_j| and, relative to it, what one computation in
/// float may lose. A score is a sum of head_dim terms, off by (head_dim + 4) u32 of their sizes, in p and in the
/// normaliser; `rescales` (of row t) times the running maximum changes, each an exponential (4 units) of a difference off by
/// a rounding of both scores; and the sums over t + 1 positions.
struct AttentionError {
  std::vector<double> weight, relative;
};
template <class Rescales>
AttentionError attention_error(const AttentionShape& shape, const HostF32& qkv, const Rescales& rescales,
                               const HostI32* documents = nullptr) {
  AttentionError error;
  const std::int64_t n = shape.head_dim;
  const double scale = 1 / std::sqrt(static_cast<double>(n));
  for (std::int64_t row = 0; row < shape.batch * shape.seq_len; ++row) {
    const std::int64_t t = row % shape.seq_len;
    for (int h = 0; h < shape.heads; ++h) {
      const int kv = shape.heads + h / (shape.heads / shape.kv_heads);
      std::vector<double> p;
      double largest = -1e300, size = 0, sum = 0;
      const std::int64_t first = first_seen(shape, documents, row / shape.seq_len, t);
      for (std::int64_t j = row - t + first; j <= row; ++j) {
        double score = 0, terms = 0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double term = scale * qkv[row * shape.row() + h * n + i] * qkv[j * shape.row() + kv * n + i];
          score += term;
          terms += std::abs(term);
        }
        p.push_back(score);
        largest = std::max(largest, score);
        size = std::max(size, terms);
      }
      for (double& x : p) sum += x = std::exp(x - largest);
      const double relative = u32 * (4 * static_cast<double>(n + 4) * size + rescales(t) * (4 + 2 * size) +
                                     4 * static_cast<double>(t) + 32);
      for (std::int64_t i = 0; i < n; ++i) {
        double weight = 0;
        for (std::int64_t j = first; j <= t; ++j) {
          const std::int64_t at = (row - t + j) * shape.row() + (kv + shape.kv_heads) * n + i;
          weight += p[static_cast<std::size_t>(j - first)] / sum * std::abs(qkv[at]);
        }
        error.weight.push_back(weight);
        error.relative.push_back(relative);
      }
    }
  }
  return error;
}

}  // namespace vqlm::testing
