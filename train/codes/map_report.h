// What a code map is like, for people and for programs: `vqlm codes show` and `compare`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "data/tokenizer/tokenizer.h"
#include "train/codes/code_map_file.h"
#include "train/codes/map_distortion.h"
#include "train/codes/map_information.h"

namespace vqlm {

/// A map and what is known beside it.
struct KnownMap {
  std::string path;
  CodeMap map;
  MapEvidence evidence;  // of the file, or from --data and --from
};

/// Throws Error naming the file and the dataset for damage.
KnownMap open_map(const std::string& path);

struct MapSummary {
  std::vector<std::int64_t> sizes;           // (K)
  std::vector<std::int64_t> size_quartiles;  // smallest, three quartiles, largest
  std::int64_t one_token_clusters = 0;
  std::int64_t bytes = 0;  // of the integers: V (4 + G)
  // With counts only:
  std::vector<double> mass;                  // (K), sums to 1
  std::optional<double> members_scored;      // a token: sum_v p_v m_k(v), clusters of one scoring none
  std::optional<double> cluster_perplexity;  // exp of the entropy of `mass`: at most K
  // With vectors only:
  std::vector<BandDistortion> bands;
};

/// counts_of_data (V), where given, stand before those in the file.
MapSummary summarise(const KnownMap& known);

/// Which clusters' words to print.
struct ClusterWords {
  std::vector<std::int64_t> clusters;
  int words = 12;
};

/// `asked`, or where that is empty the `n` with the largest mass (sizes where there are no counts) and n random ones of
/// more than one token. Throws UsageError for a cluster that the map does not have.
std::vector<std::int64_t> choose_clusters(const KnownMap& known, const MapSummary& summary,
                                          const std::vector<std::int64_t>& asked, int n);

/// Words: pieces of the tokenizer, or token numbers where there is none; the most frequent first.
std::string map_text(const KnownMap& known, const MapSummary& summary, const ClusterWords& show,
                     const Tokenizer* tokenizer);
std::string map_json(const KnownMap& known, const MapSummary& summary, const ClusterWords& show,
                     const Tokenizer* tokenizer);

/// What the counts of one corpus say about several maps of one vocabulary.
struct MapComparison {
  std::vector<MapSummary> summaries;
  std::vector<ClusterAgreement> with_first;  // of each map with the first
  std::vector<double> information;  // I(previous token; cluster of the next), nats a token; empty without --data
  double token_information = 0;     // I(previous token; next token)
};

std::string comparison_text(const std::vector<KnownMap>& maps, const MapComparison& comparison);
std::string comparison_json(const std::vector<KnownMap>& maps, const MapComparison& comparison);

}  // namespace vqlm
