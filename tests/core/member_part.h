// Parts of a code map's members for tests, and what the ops of core/ops/member_part.h must give, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/ops/member_part.h"
#include "tests/core/member_map.h"

namespace vqlm::testing {

/// The members of `map` among tokens [first, first + count).
struct MemberPart {
  MemberPart(MemberMap& whole_map, std::int64_t first_token, std::int64_t count)
      : whole(whole_map),
        first(first_token),
        position_of_token({whole.members.size()}, -1),
        members({count}),
        member_begin({whole.member_begin.size()}),
        cluster_sizes({whole.member_begin.size() - 1}) {
    std::int32_t found = 0;
    for (std::int64_t k = 0; k < cluster_sizes.size(); ++k) {
      member_begin[k] = found;
      cluster_sizes[k] = whole.member_begin[k + 1] - whole.member_begin[k];
      for (std::int32_t i = whole.member_begin[k]; i < whole.member_begin[k + 1]; ++i) {
        const std::int32_t token = whole.members[i];
        if (token < first || token >= first + count) continue;
        members[found] = token;
        position_of_token[token] = found++;
      }
    }
    member_begin[cluster_sizes.size()] = found;
  }

  CodeMapView view() {
    return {whole.cluster_of_token, position_of_token, members, member_begin, {}, cluster_sizes};
  }
  /// The part's rows (M, d) of the vectors (V, d) of all members in `whole`'s order.
  HostF32 rows_of(const HostF32& vectors, std::int64_t d) const {
    HostF32 rows({members.size(), d});
    for (std::int64_t i = 0; i < members.size(); ++i) {
      for (std::int64_t j = 0; j < d; ++j) rows[i * d + j] = vectors[whole.position_of_token[members[i]] * d + j];
    }
    return rows;
  }

  MemberMap& whole;
  std::int64_t first;
  HostI32 position_of_token, members, member_begin, cluster_sizes;
};

/// The tokens of part p of P, as TensorParallel::part_of cuts them.
inline MemberPart member_part(MemberMap& map, std::int64_t p, std::int64_t parts) {
  const std::int64_t vocabulary = map.members.size(), begin = vocabulary * p / parts;
  return {map, begin, vocabulary * (p + 1) / parts - begin};
}

/// A value and what its computation may lose.
struct Bounded {
  std::vector<double> value, bound;
  explicit Bounded(std::int64_t size) : value(static_cast<std::size_t>(size)), bound(static_cast<std::size_t>(size)) {}
  void add(std::int64_t at, double x, double error) {
    value[static_cast<std::size_t>(at)] += x;
    bound[static_cast<std::size_t>(at)] += error;
  }
};

/// Operands on the host, and the gradients of `part` from them.
struct MemberPartBatch {
  const MemberCase& c;
  const HostF32 &h, &vectors, &bias;  // (N, d); (V, d) in the whole map's order; (V)
  const HostI32& targets;
  float scale;

  struct Gradients {
    Bounded nll, dh, dvectors, dbias;
    std::vector<double> lse;
  };

  /// rounding: of ds to the activations' dtype, 0 for f32. Scores are sums of d + 1 terms, each rounded twice at most where
  /// tensor cores add (unit u32); exponentials are off by 2 + 1.2 |x| units.
  Gradients gradients(const MemberPart& part, double rounding) const {
    const std::int64_t d = c.d();
    Gradients r{Bounded(c.rows), Bounded(c.rows * d), Bounded(part.members.size() * d), Bounded(c.vocabulary()),
                std::vector<double>(static_cast<std::size_t>(c.rows))};
    const MemberMap& map = part.whole;
    const double additions = 4 * static_cast<double>(c.rows + c.vocabulary() + 8);
    for (std::int64_t n = 0; n < c.rows; ++n) {
      if (targets[n] < 0) continue;
      const std::int32_t k = map.cluster_of_token[targets[n]];
      std::vector<double> s;
      double terms = 0;
      for (std::int32_t i = map.member_begin[k]; i < map.member_begin[k + 1]; ++i) {
        double score = bias[map.members[i]], magnitude = std::abs(score);
        for (std::int64_t j = 0; j < d; ++j) {
          const double term = static_cast<double>(h[n * d + j]) * static_cast<double>(vectors[i * d + j]);
          score += term;
          magnitude += std::abs(term);
        }
        s.push_back(score);
        terms = std::max(terms, magnitude);
      }
      const double largest = *std::ranges::max_element(s);
      double sum = 0;
      for (const double x : s) sum += std::exp(x - largest);
      const double lse = largest + std::log(sum);
      const double of_score = u32 * 8 * static_cast<double>(d + 4) * terms;
      const double of_lse = of_score + u32 * (2 * static_cast<double>(s.size()) + 16 + std::abs(lse));
      r.lse[static_cast<std::size_t>(n)] = lse;
      for (std::size_t w = 0; w < s.size(); ++w) {
        const std::int32_t i = map.member_begin[k] + static_cast<std::int32_t>(w), token = map.members[i];
        const double p = std::exp(s[w] - lse), hit = token == targets[n] ? 1 : 0;
        if (hit > 0) r.nll.add(n, lse - s[w], of_score + of_lse + 16 * u32 * (terms + 8));
        if (part.position_of_token[token] < 0) continue;
        const double ds = scale * (p - hit);
        const double error = scale * p * (of_score + of_lse + u32 * (16 + 3 * std::abs(s[w] - lse))) +
                             scale * 4 * u32 * (p + hit) + (rounding + u32 * additions) * std::abs(ds);
        const std::int64_t row = part.position_of_token[token];
        r.dbias.add(token, ds, error);
        for (std::int64_t j = 0; j < d; ++j) {
          const double u = vectors[i * d + j], x = h[n * d + j];
          r.dh.add(n * d + j, ds * u, error * std::abs(u));
          r.dvectors.add(row * d + j, ds * x, error * std::abs(x));
        }
      }
    }
    return r;
  }
};

}  // namespace vqlm::testing
