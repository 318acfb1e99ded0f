#include "data/token_vectors.h"

// Products of one thread give the same bits whatever the number of cores.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <Eigen/SparseCore>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rng.h"

namespace vqlm {
namespace {

constexpr std::uint64_t block_tokens = 65'536;
// Pairs that are collected before they are sorted and merged into the counts: 64 MiB and as much again for sorting.
constexpr std::size_t pairs_at_once = std::size_t{8} << 20;

/// Distinct keys in rising order with how often they were seen.
class KeyCounts {
 public:
  void add(std::uint64_t key) {
    pending_.push_back(key);
    if (pending_.size() == pairs_at_once) merge();
  }

  /// Calls f(key, count) in rising order of keys.
  template <class F>
  void for_each(F f) {
    merge();
    for (std::size_t i = 0; i < keys_.size(); ++i) f(keys_[i], counts_[i]);
  }

 private:
  void merge();

  std::vector<std::uint64_t> pending_;
  std::vector<std::uint64_t> scratch_;
  std::vector<std::uint64_t> keys_;
  std::vector<std::uint64_t> counts_;
};

/// Sorts by the low bytes of the keys, least significant first; `scratch` is as large.
void radix_sort(std::vector<std::uint64_t>& keys, std::vector<std::uint64_t>& scratch) {
  std::uint64_t used = 0;
  for (const std::uint64_t key : keys) used |= key;
  scratch.resize(keys.size());
  constexpr int digit_bits = 11;
  for (int shift = 0; shift < 64 && (used >> shift) != 0; shift += digit_bits) {
    std::vector<std::size_t> place((std::size_t{1} << digit_bits) + 1, 0);
    const auto digit = [&](std::uint64_t key) { return (key >> shift) & ((1u << digit_bits) - 1); };
    for (const std::uint64_t key : keys) ++place[digit(key) + 1];
    std::partial_sum(place.begin(), place.end(), place.begin());
    for (const std::uint64_t key : keys) scratch[place[digit(key)]++] = key;
    keys.swap(scratch);
  }
}

void KeyCounts::merge() {
  radix_sort(pending_, scratch_);
  std::vector<std::uint64_t> keys;
  std::vector<std::uint64_t> counts;
  keys.reserve(keys_.size() + pending_.size() / 4);
  counts.reserve(keys.capacity());
  std::size_t old = 0;
  for (std::size_t begin = 0; begin < pending_.size();) {
    const std::uint64_t key = pending_[begin];
    std::size_t end = begin;
    while (end < pending_.size() && pending_[end] == key) ++end;
    for (; old < keys_.size() && keys_[old] < key; ++old) {
      keys.push_back(keys_[old]);
      counts.push_back(counts_[old]);
    }
    std::uint64_t count = end - begin;
    if (old < keys_.size() && keys_[old] == key) count += counts_[old++];
    keys.push_back(key);
    counts.push_back(count);
    begin = end;
  }
  keys.insert(keys.end(), keys_.begin() + static_cast<std::ptrdiff_t>(old), keys_.end());
  counts.insert(counts.end(), counts_.begin() + static_cast<std::ptrdiff_t>(old), counts_.end());
  keys_ = std::move(keys);
  counts_ = std::move(counts);
  pending_.clear();
}

/// Context number of every token, or -1.
std::vector<std::int32_t> context_of_token(const std::vector<std::int64_t>& counts, std::int64_t contexts) {
  std::vector<std::int32_t> order(counts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
  });
  std::vector<std::int32_t> context(counts.size(), -1);
  for (std::int64_t c = 0; c < contexts; ++c) {
    context[static_cast<std::size_t>(order[static_cast<std::size_t>(c)])] = static_cast<std::int32_t>(c);
  }
  return context;
}

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// y (R, w) = A x, x (C, w).
RowMajor times(const SparseRows& a, const RowMajor& x) {
  RowMajor y = RowMajor::Zero(a.rows(), x.cols());
  for (std::int64_t row = 0; row < a.rows(); ++row) {
    auto out = y.row(row);
    for (std::int64_t i = a.row_begin[static_cast<std::size_t>(row)];
         i < a.row_begin[static_cast<std::size_t>(row) + 1]; ++i) {
      out += a.value[static_cast<std::size_t>(i)] * x.row(a.column[static_cast<std::size_t>(i)]);
    }
  }
  return y;
}

/// y (C, w) = A^T x, x (R, w).
RowMajor transposed_times(const SparseRows& a, const RowMajor& x) {
  RowMajor y = RowMajor::Zero(a.columns, x.cols());
  for (std::int64_t row = 0; row < a.rows(); ++row) {
    const auto in = x.row(row);
    for (std::int64_t i = a.row_begin[static_cast<std::size_t>(row)];
         i < a.row_begin[static_cast<std::size_t>(row) + 1]; ++i) {
      y.row(a.column[static_cast<std::size_t>(i)]) += a.value[static_cast<std::size_t>(i)] * in;
    }
  }
  return y;
}

/// An orthonormal basis of the columns of y, in place of y.
void orthonormalise(RowMajor& y) {
  const Eigen::HouseholderQR<Eigen::MatrixXf> qr(y);
  y = qr.householderQ() * Eigen::MatrixXf::Identity(y.rows(), y.cols());
}

}  // namespace

void visit_tokens(const ShardSet& shards, std::uint64_t max_tokens,
                  const std::function<void(std::span<const std::int32_t> tokens, std::size_t own)>& visit) {
  ShardSet reader = shards;  // with files and cache of its own
  const std::uint64_t total = reader.total_tokens();
  const std::uint64_t all_blocks = (total + block_tokens - 1) / block_tokens;
  const std::uint64_t wanted = (max_tokens + block_tokens - 1) / block_tokens;
  const std::uint64_t blocks = std::min(all_blocks, std::max<std::uint64_t>(wanted, 1));
  std::vector<std::int32_t> tokens;
  for (std::uint64_t b = 0; b < blocks; ++b) {
    const std::uint64_t begin = b * all_blocks / blocks * block_tokens;
    tokens.resize(std::min(block_tokens + 1, total - begin));
    reader.read(begin, tokens);
    visit(tokens, std::min<std::size_t>(tokens.size(), block_tokens));
  }
}

SparseRows count_neighbours(const ShardSet& shards, std::uint64_t max_tokens,
                            const std::vector<std::int64_t>& counts, int contexts) {
  const auto vocab_size = static_cast<std::int64_t>(counts.size());
  const std::int64_t c = std::min<std::int64_t>(contexts, vocab_size);
  const std::vector<std::int32_t> context = context_of_token(counts, c);
  const auto key = [&](std::int32_t token, std::int64_t column) {
    return static_cast<std::uint64_t>(token * 2 * c + column);
  };
  KeyCounts pairs;
  visit_tokens(shards, max_tokens, [&](std::span<const std::int32_t> tokens, std::size_t) {
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const std::int32_t next = context[static_cast<std::size_t>(tokens[i + 1])];
      const std::int32_t previous = context[static_cast<std::size_t>(tokens[i])];
      if (next >= 0) pairs.add(key(tokens[i], next));
      if (previous >= 0) pairs.add(key(tokens[i + 1], c + previous));
    }
  });
  SparseRows rows;
  rows.columns = 2 * c;
  rows.row_begin.assign(counts.size() + 1, 0);
  pairs.for_each([&](std::uint64_t pair, std::uint64_t count) {
    ++rows.row_begin[pair / static_cast<std::uint64_t>(2 * c) + 1];
    rows.column.push_back(static_cast<std::int32_t>(pair % static_cast<std::uint64_t>(2 * c)));
    rows.value.push_back(static_cast<float>(count));
  });
  std::partial_sum(rows.row_begin.begin(), rows.row_begin.end(), rows.row_begin.begin());
  return rows;
}

void to_positive_pmi(SparseRows& counts, int parts) {
  VQLM_ASSERT(counts.columns % parts == 0);
  const std::int64_t part_columns = counts.columns / parts;
  std::vector<double> context_weight(static_cast<std::size_t>(counts.columns), 0);
  for (std::size_t i = 0; i < counts.value.size(); ++i) {
    context_weight[static_cast<std::size_t>(counts.column[i])] += static_cast<double>(counts.value[i]);
  }
  for (int part = 0; part < parts; ++part) {
    const auto begin = context_weight.begin() + part * part_columns;
    std::transform(begin, begin + part_columns, begin, [](double n) { return std::pow(n, 0.75); });
    const double sum = std::accumulate(begin, begin + part_columns, 0.0);
    if (sum > 0) std::transform(begin, begin + part_columns, begin, [&](double q) { return q / sum; });
  }
  for (std::int64_t row = 0; row < counts.rows(); ++row) {
    const auto begin = static_cast<std::size_t>(counts.row_begin[static_cast<std::size_t>(row)]);
    const auto end = static_cast<std::size_t>(counts.row_begin[static_cast<std::size_t>(row) + 1]);
    std::vector<double> row_sum(static_cast<std::size_t>(parts), 0);
    const auto part_of = [&](std::size_t i) {
      return static_cast<std::size_t>(counts.column[i] / part_columns);
    };
    for (std::size_t i = begin; i < end; ++i) row_sum[part_of(i)] += static_cast<double>(counts.value[i]);
    for (std::size_t i = begin; i < end; ++i) {
      const double expected =
          row_sum[part_of(i)] * context_weight[static_cast<std::size_t>(counts.column[i])];
      const double pmi = std::log(static_cast<double>(counts.value[i]) / expected);
      counts.value[i] = static_cast<float>(std::max(0.0, pmi));
    }
  }
}

std::vector<float> truncated_svd(const SparseRows& a, int dims, std::uint64_t seed) {
  constexpr int oversampling = 20;
  constexpr int power_iterations = 4;
  const std::int64_t width = std::min<std::int64_t>({dims + oversampling, a.rows(), a.columns});
  const Philox rng(seed, "token_vectors.range_finder");
  RowMajor probe(a.columns, width);
  for (std::int64_t i = 0; i < probe.size(); ++i) probe.data()[i] = rng.normal(static_cast<std::uint64_t>(i));
  RowMajor basis = times(a, probe);  // (V, width)
  for (int i = 0; i < power_iterations; ++i) {
    orthonormalise(basis);
    basis = times(a, transposed_times(a, basis));
  }
  orthonormalise(basis);
  // A ~ Q (A^T Q)^T; the SVD of the small factor from the eigenvectors of its Gram matrix, in double: singular values
  // below 1e-8 of the largest would be lost, which are no signal here.
  const Eigen::MatrixXd small = transposed_times(a, basis).cast<double>();  // (2C, width)
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(small.transpose() * small);
  std::vector<float> x(static_cast<std::size_t>(a.rows() * dims), 0.0f);
  Eigen::Map<RowMajor> out(x.data(), a.rows(), dims);
  const std::int64_t kept = std::min<std::int64_t>(dims, width);
  const Eigen::MatrixXf vectors = eigen.eigenvectors().rowwise().reverse().leftCols(kept).cast<float>();
  out.leftCols(kept) = basis * vectors;
  for (std::int64_t j = 0; j < kept; ++j) {
    const double squared = std::max(0.0, eigen.eigenvalues()(width - 1 - j));  // singular value squared
    out.col(j) *= static_cast<float>(std::sqrt(std::sqrt(squared)));
  }
  return x;
}

}  // namespace vqlm
