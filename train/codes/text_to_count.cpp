#include "train/codes/text_to_count.h"

#include <algorithm>
#include <utility>

namespace vqlm {
namespace {

constexpr std::uint64_t block_tokens = 65'536;

/// A rank's part of `all`, neighbours to one rank: they share chunks of the shards, which are decoded as a whole.
std::pair<std::uint64_t, std::uint64_t> part_of(std::uint64_t all, const CountingRanks& ranks) {
  const auto begin = [&](int rank) {
    return all * static_cast<std::uint64_t>(rank) / static_cast<std::uint64_t>(ranks.size);
  };
  return {begin(ranks.rank), begin(ranks.rank + 1)};
}

/// The largest number of samples from the run's start, at most n, of which at most `most` differ.
std::uint64_t first_samples(SampleOrder& order, std::uint64_t n, std::uint64_t most) {
  if (order.distinct(n) <= most) return n;
  std::uint64_t fits = 0, too_many = n;
  while (too_many - fits > 1) {
    const std::uint64_t middle = fits + (too_many - fits) / 2;
    (order.distinct(middle) <= most ? fits : too_many) = middle;
  }
  return fits;
}

}  // namespace

TextToCount::TextToCount(const ShardSet& shards, std::uint64_t max_tokens) : shards_(shards), max_tokens_(max_tokens) {}

TextToCount::TextToCount(const ShardSet& shards, SampleOrder order, std::uint64_t n, std::uint64_t max_tokens)
    : shards_(shards), max_tokens_(max_tokens), seq_len_(order.seq_len()) {
  samples_of_run_ = order.distinct(n);
  const std::uint64_t most = std::max<std::uint64_t>(max_tokens / seq_len_, 1);
  samples_ = order.distinct_first_tokens(first_samples(order, n, most));
}

std::uint64_t TextToCount::blocks() const {
  const std::uint64_t all = (shards_.total_tokens() + block_tokens - 1) / block_tokens;
  const std::uint64_t wanted = max_tokens_ / block_tokens + (max_tokens_ % block_tokens > 0 ? 1 : 0);
  return std::min(all, std::max<std::uint64_t>(wanted, 1));
}

std::uint64_t TextToCount::tokens() const {
  if (seq_len_ > 0) return samples_.size() * seq_len_;
  return std::min(shards_.total_tokens(), blocks() * block_tokens);
}

void TextToCount::visit(const std::function<void(const Block& block)>& visit, const CountingRanks& ranks,
                        std::size_t following) const {
  seq_len_ > 0 ? visit_samples(visit, ranks, following) : visit_stream(visit, ranks, following);
}

void TextToCount::visit_stream(const std::function<void(const Block& block)>& visit, const CountingRanks& ranks,
                               std::size_t following) const {
  ShardSet reader = shards_;  // with files and cache of its own
  const std::uint64_t total = reader.total_tokens();
  const std::uint64_t all_blocks = (total + block_tokens - 1) / block_tokens, chosen = blocks();
  const auto [first, last] = part_of(chosen, ranks);
  std::vector<std::int32_t> tokens;
  for (std::uint64_t b = first; b < last; ++b) {
    const std::uint64_t begin = b * all_blocks / chosen * block_tokens;
    tokens.resize(std::min<std::uint64_t>(block_tokens + following, total - begin));
    reader.read(begin, tokens);
    const std::size_t own = std::min<std::size_t>(tokens.size(), block_tokens);
    visit({.tokens = tokens, .counted = std::span(tokens).first(own), .pairs = own});
  }
}

void TextToCount::visit_samples(const std::function<void(const Block& block)>& visit, const CountingRanks& ranks,
                                std::size_t following) const {
  ShardSet reader = shards_;  // with files and cache of its own
  // Between the last sample of a source and the first of the next lies at least one token, so that these never touch.
  const auto continues = [&](std::uint64_t i) {
    return i < samples_.size() && samples_[i] == samples_[i - 1] + seq_len_;
  };
  const std::uint64_t most = std::max<std::uint64_t>(block_tokens / seq_len_, 1);
  const auto [first, last] = part_of(samples_.size(), ranks);
  std::vector<std::int32_t> tokens;
  for (std::uint64_t begin = first, end = first; begin < last; begin = end) {
    do ++end;
    while (end < last && end - begin < most && continues(end));
    const std::uint64_t own = (end - begin) * seq_len_;
    std::uint64_t text = own + 1;  // the token that the last one predicts
    for (std::uint64_t next = end; text < own + following && continues(next); ++next) text += seq_len_;
    tokens.resize(std::min<std::uint64_t>(text, own + std::max<std::uint64_t>(following, 1)));
    reader.read(samples_[begin], tokens);
    visit({.tokens = tokens, .counted = std::span(tokens).subspan(1, own), .pairs = own});
  }
}

}  // namespace vqlm
