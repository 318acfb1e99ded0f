// What both forms of the VQ head's second factor share on the CPU: blocks of rows of one cluster, a thread's memory for
// them, and the softmax of their scores. The forms differ in where members' vectors come from and where their gradients
// go: put together from a codebook (member_entropy.cpp), or rows of a matrix of their own (member_rows.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/cpu/member_kernels.h"
#include "core/ops/member_entropy.h"

namespace vqlm::cpu::members {

// Bounds of a thread's scratch in floats: 4 MiB of scores and 0.5 MiB of members' vectors (half of a second-level
// cache; the codebook itself wants the other half).
inline constexpr std::int64_t score_floats = std::int64_t{1} << 20;
inline constexpr std::int64_t vector_floats = std::int64_t{1} << 17;

/// What one call works on.
struct Problem {
  MemberSizes sizes;  // {1, V, d} where members have vectors of their own
  const float *h, *codebook, *bias;
  const std::int32_t *target, *order, *row_begin;
  const std::int32_t *member_begin, *members, *position_of_token;
  const std::uint8_t* codes;  // null where members have vectors of their own
  float *nll, *dh;            // dh null: no gradients
  float scale;
  float* statistics = nullptr;  // of a part of the members: (N, 3), in place of nll
  const float* lse = nullptr;   // of a part of the members, its gradients: (N), in place of nll

  std::int64_t member_count(std::int64_t cluster) const { return member_begin[cluster + 1] - member_begin[cluster]; }
  /// A whole cluster's only member has probability 1, no loss and no gradient.
  std::int64_t fewest_members() const { return statistics != nullptr || lse != nullptr ? 1 : 2; }
  std::int64_t row_count(std::int64_t cluster) const { return row_begin[cluster + 1] - row_begin[cluster]; }
  /// Rows of a cluster with this many members that are done together.
  std::int64_t rows_per_unit(std::int64_t member_total) const {
    const std::int64_t by_vectors = std::max<std::int64_t>(16, vector_floats / sizes.vector());
    return std::clamp<std::int64_t>(score_floats / member_total, 1, std::min<std::int64_t>(128, by_vectors));
  }
  /// Members whose vectors are multiplied at once.
  std::int64_t members_per_tile() const { return std::max<std::int64_t>(16, vector_floats / sizes.vector()); }
};

/// A block of rows of one cluster.
struct Unit {
  std::int64_t cluster;
  std::int64_t begin, rows;  // order[begin .. begin + rows)
};

/// A thread's working memory for units of at most the sizes it was made for.
struct Workspace {
  float* scores;             // (rows, members of the cluster)
  float* transposed_scores;  // (tile, rows)
  float* vectors;            // (tile, d): members put together from codes, then their gradients
  float* rows;               // (rows, d)
  float* drows;              // (rows, d)
  float* bias;               // (members of the cluster)
  float* dbias;              // (members of the cluster)

  /// Carves the pieces for `problem` and clusters of up to `largest` members out of a block of floats().
  Workspace(const Problem& problem, std::int64_t largest, float* block);
  static std::int64_t floats(const Problem& problem, std::int64_t largest);
};

/// Units cut into one consecutive part for each thread, of about equal cost.
struct Plan {
  std::vector<Unit> units;
  std::vector<std::size_t> part_begin;  // (threads + 1)
  std::int64_t largest = 0;             // members of the largest cluster that has units
};

/// Units of all clusters with rows and enough members. A cluster's units stay in one part where its members' vectors are more than `most_shared` floats.
Plan make_plan(const Problem& problem, std::int64_t clusters, int threads, std::int64_t most_shared);

/// Fetches the unit's rows of h and its members' biases; dbias becomes 0.
void load_unit(const Problem& problem, const Unit& unit, const Workspace& work);

/// scores (rows, member_total)[:, first .. first + count) = rows (rows, d) vectors (count, d)^T.
void score_tile(const Workspace& work, const float* vectors, std::int64_t rows, std::int64_t member_total,
                std::int64_t first, std::int64_t count, std::int64_t d);

/// Scores to nll or statistics and, where there are gradients, to scale * (softmax - [target]) with its column sums added to
/// dbias.
void entropy_of_rows(const Problem& problem, const Unit& unit, const Workspace& work);

/// dh accumulates drows, dtoken_bias (V) dbias.
void add_unit_gradients(const Problem& problem, const Unit& unit, const Workspace& work, float* dtoken_bias);

/// The whole op where members have vectors of their own: codebook and dvectors are (V, d) in member order.
void own_vector_entropy(const Problem& problem, const MemberGradients& gradients, std::int64_t clusters);

}  // namespace vqlm::cpu::members
