// The order in which sources take turns so that each always has its share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vqlm {

/// Endless turns of sources with whole-number shares m_s, P = sum of m_s: after any n turns source s has had
/// n m_s / P of them to within one (so any window of them to within two), and after P turns exactly m_s, when everything
/// begins anew. The next turn is that of the most urgent source of those that lag behind: Tijdeman, "The chairman
/// assignment problem", Discrete Mathematics 32 (1980), with its bound 1 - 1 / (2 k - 2) for k sources.
class Apportionment {
 public:
  /// The largest P, and the most sources.
  static constexpr std::uint64_t largest_period = 10'000'000;
  static constexpr std::size_t most_sources = 1000;

  /// shares: with a common divisor where it likes; not all 0. P, that divisor taken out, is within largest_period.
  explicit Apportionment(std::vector<std::uint64_t> shares);

  /// P.
  std::uint64_t period() const { return period_; }
  /// Goes to the state after n turns: in at most P steps, whatever n.
  void seek(std::uint64_t n);
  /// The source of the next turn.
  std::size_t next();
  /// The turns that each source has had.
  std::vector<std::uint64_t> counts() const;
  std::uint64_t count(std::size_t source) const {
    return periods_ * static_cast<std::uint64_t>(shares_[source]) + static_cast<std::uint64_t>(had_[source]);
  }
  /// The turns until a source has had more than `count` of them, from the start; it must have a share. At most P steps.
  std::uint64_t turns_until(std::size_t source, std::uint64_t count);
  std::uint64_t turns() const { return periods_ * period_ + in_period_; }

 private:
  std::vector<std::int64_t> shares_;
  std::uint64_t period_ = 0;
  std::int64_t sources_ = 0;       // k: those with a share
  std::uint64_t periods_ = 0;      // whole ones
  std::uint64_t in_period_ = 0;    // turns of the one at work
  std::vector<std::int64_t> had_;  // by source, in the period at work
};

}  // namespace vqlm
