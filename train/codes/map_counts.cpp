#include "train/codes/map_counts.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/model/head/code_map.h"

namespace vqlm {
namespace {

// Pairs that are collected before they are sorted and merged into the counts: 64 MiB and as much again for sorting.
constexpr std::size_t pairs_at_once = std::size_t{8} << 20;

/// Distinct keys in rising order with how often they were seen.
class KeyCounts {
 public:
  void add(std::uint64_t key) {
    pending_.push_back(key);
    if (pending_.size() == pairs_at_once) merge();
  }

  /// To be called after the last add().
  void finish() { merge(); }
  const std::vector<std::uint64_t>& keys() const { return keys_; }
  const std::vector<std::uint64_t>& counts() const { return counts_; }

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
  const std::vector<std::int32_t> order = most_frequent_tokens(counts, contexts);
  std::vector<std::int32_t> context(counts.size(), -1);
  for (std::int64_t c = 0; c < contexts; ++c) {
    context[static_cast<std::size_t>(order[static_cast<std::size_t>(c)])] = static_cast<std::int32_t>(c);
  }
  return context;
}

// Counts that ranks add up at a time: 32 MiB of doubles, and as much again where they are exchanged.
constexpr std::int64_t sums_at_once = std::int64_t{4} << 20;

/// The pairs as rows, in rising order of keys = row * columns + column.
class RowBuilder {
 public:
  RowBuilder(std::size_t rows, std::int64_t columns) {
    rows_.columns = columns;
    rows_.row_begin.assign(rows + 1, 0);
  }
  void add(std::uint64_t key, float count) {
    const auto columns = static_cast<std::uint64_t>(rows_.columns);
    ++rows_.row_begin[key / columns + 1];
    rows_.column.push_back(static_cast<std::int32_t>(key % columns));
    rows_.value.push_back(count);
  }
  SparseRows finish() {
    std::partial_sum(rows_.row_begin.begin(), rows_.row_begin.end(), rows_.row_begin.begin());
    return std::move(rows_);
  }

 private:
  SparseRows rows_;
};

/// The sums over all ranks of their pairs: dense, some rows at a time, because every rank found other pairs.
SparseRows summed_rows(const KeyCounts& pairs, std::int64_t rows, std::int64_t columns, const CountingRanks& ranks) {
  RowBuilder builder(static_cast<std::size_t>(rows), columns);
  const auto& keys = pairs.keys();
  if (ranks.size == 1) {
    for (std::size_t i = 0; i < keys.size(); ++i) builder.add(keys[i], static_cast<float>(pairs.counts()[i]));
    return builder.finish();
  }
  const std::int64_t rows_at_once = std::max<std::int64_t>(1, sums_at_once / columns);
  std::vector<double> sums;
  std::size_t next = 0;
  for (std::int64_t row = 0; row < rows; row += rows_at_once) {
    const auto begin = static_cast<std::uint64_t>(row * columns);
    sums.assign(static_cast<std::size_t>(std::min(rows_at_once, rows - row) * columns), 0);
    for (; next < keys.size() && keys[next] - begin < sums.size(); ++next) {
      sums[keys[next] - begin] = static_cast<double>(pairs.counts()[next]);
    }
    ranks.sum(sums);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (sums[i] > 0) builder.add(begin + i, static_cast<float>(sums[i]));
    }
  }
  return builder.finish();
}

}  // namespace

std::vector<std::int64_t> count_tokens(const TextToCount& text, const CountingRanks& ranks) {
  std::vector<double> counts(static_cast<std::size_t>(text.shards().vocab_size()), 0);
  const auto count = [&](const TextToCount::Block& block) {
    for (const std::int32_t token : block.counted) counts[static_cast<std::size_t>(token)] += 1;
  };
  text.visit(count, ranks);
  ranks.sum(counts);
  return {counts.begin(), counts.end()};
}

SparseRows count_neighbours(const TextToCount& text, const std::vector<std::int64_t>& counts, int contexts,
                            const std::vector<int>& offsets, const CountingRanks& ranks) {
  const auto vocab_size = static_cast<std::int64_t>(counts.size());
  const std::int64_t c = std::min<std::int64_t>(contexts, vocab_size);
  const std::int64_t columns = c * static_cast<std::int64_t>(offsets.size());
  const std::vector<std::int32_t> context = context_of_token(counts, c);
  std::size_t reach = 0;
  for (const int offset : offsets) reach = std::max(reach, static_cast<std::size_t>(std::abs(offset)));
  KeyCounts pairs;
  const auto count = [&](const TextToCount::Block& block) {
    const std::span<const std::int32_t> tokens = block.tokens;
    for (std::size_t part = 0; part < offsets.size(); ++part) {
      const int offset = offsets[part];
      const auto distance = static_cast<std::size_t>(std::abs(offset));
      const std::size_t first = offset < 0 ? distance : 0;  // where the token stands, seen from the earlier of the two
      const std::size_t other = distance - first;
      for (std::size_t i = 0; i < block.pairs && i + distance < tokens.size(); ++i) {
        const std::int32_t column = context[static_cast<std::size_t>(tokens[i + other])];
        if (column < 0) continue;
        pairs.add(
            static_cast<std::uint64_t>(tokens[i + first] * columns + static_cast<std::int64_t>(part) * c + column));
      }
    }
  };
  text.visit(count, ranks, reach);
  pairs.finish();
  return summed_rows(pairs, vocab_size, columns, ranks);
}

}  // namespace vqlm
