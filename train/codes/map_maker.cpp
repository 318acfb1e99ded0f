#include "train/codes/map_maker.h"

#include <numeric>

#include "core/error.h"
#include "core/host_collectives.h"

namespace vqlm {

CountingRanks counting_ranks(Backend& backend, Communicator& group) {
  return {.rank = group.rank(), .size = group.size(), .sum = [&](std::vector<double>& values) {
            sum_over(backend, group, values);
          }};
}

bool is_made_map(const std::string& name) {
  return name == "random" || name == "contiguous" || name == "frequency" || name == "corpus";
}

FittedMap make_code_map(const std::string& name, const CorpusMapOptions& options, const TextToCount& text,
                        const std::vector<std::int64_t>& counts, Backend& backend, const CountingRanks& ranks) {
  VQLM_ASSERT(is_made_map(name));
  if (name == "corpus") return fit_corpus_map(text, counts, backend, options, ranks);
  const std::vector<std::int32_t> own = most_frequent_tokens(counts, options.own_tokens);
  const std::int64_t tokens = static_cast<std::int64_t>(counts.size()) - options.own_tokens;
  const std::int64_t clusters = options.clusters - options.own_tokens;
  const int codes = options.groups > 0 ? options.codes : 0;
  CodeMap rest;
  if (name == "random") rest = make_random_map(tokens, clusters, options.groups, codes, options.seed);
  if (name == "contiguous") rest = make_contiguous_map(tokens, clusters, options.groups, codes, options.seed);
  if (name == "frequency") {
    rest = make_frequency_map(without_tokens(counts, own), clusters, options.groups, codes, options.seed);
  }
  FittedMap fitted{.map = with_own_clusters(rest, own), .dims = 0, .vectors = {}};
  if (name == "frequency" || !own.empty())
    fitted.map.counted_tokens = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  return fitted;
}

}  // namespace vqlm
