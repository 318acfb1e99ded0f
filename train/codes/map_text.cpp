// The words and the JSON of map_report.h.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/codes/map_report.h"

namespace vqlm {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// The first `n` tokens of a cluster, the most frequent first where counts are known.
std::vector<std::int32_t> first_members(const KnownMap& known, std::int64_t cluster, int n) {
  std::vector<std::int32_t> members;
  for (std::size_t v = 0; v < known.map.cluster_of_token.size(); ++v) {
    if (known.map.cluster_of_token[v] == cluster) members.push_back(static_cast<std::int32_t>(v));
  }
  const auto& counts = known.evidence.counts;
  if (!counts.empty()) {
    std::stable_sort(members.begin(), members.end(), [&](std::int32_t a, std::int32_t b) {
      return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
    });
  }
  members.resize(std::min(members.size(), static_cast<std::size_t>(n)));
  return members;
}

std::string word(std::int32_t token, const Tokenizer* tokenizer) {
  return tokenizer != nullptr && token < tokenizer->vocab_size() ? tokenizer->shown(token) : std::to_string(token);
}

/// Places of a UTF-8 text on a terminal, near enough: its code points.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// The clusters' words in columns, five clusters side by side.
std::string words_text(const KnownMap& known, const MapSummary& summary, const ClusterWords& show,
                       const Tokenizer* tokenizer) {
  constexpr std::size_t side_by_side = 5;
  constexpr std::size_t column_width = 22;
  std::string text;
  const auto cell = [&](std::string word) {
    for (char& c : word) c = static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    const std::size_t width = width_of(word);
    text += word + std::string(width < column_width ? column_width - width : 1, ' ');
  };
  for (std::size_t begin = 0; begin < show.clusters.size(); begin += side_by_side) {
    const std::size_t end = std::min(begin + side_by_side, show.clusters.size());
    std::vector<std::vector<std::int32_t>> members;
    text += "\n";
    for (std::size_t i = begin; i < end; ++i) {
      const auto k = static_cast<std::size_t>(show.clusters[i]);
      members.push_back(first_members(known, show.clusters[i], show.words));
      cell(fmt::format("[{}] {} tokens{}", k, summary.sizes[k],
                       summary.mass.empty() ? "" : fmt::format(" {:.1f} %", 100 * summary.mass[k])));
    }
    for (int row = 0; row < show.words; ++row) {
      text += "\n";
      for (const auto& column : members) {
        const auto i = static_cast<std::size_t>(row);
        cell(i < column.size() ? word(column[i], tokenizer) : "");
      }
    }
    text += "\n";
  }
  return text;
}

std::string mass_text(const CodeMap& map, const MapSummary& summary) {
  if (!summary.members_scored) return "counts        none; name --data for what follows from them\n";
  std::vector<double> mass = summary.mass;
  std::sort(mass.rbegin(), mass.rend());
  double largest = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(10, mass.size()); ++i) largest += mass[i];
  return fmt::format(
      "scored        {:.1f} members a token expected, and {} clusters: {:.2f} % of the {} logits of a dense "
      "head\n"
      "mass          largest cluster {:.2f} %, ten largest {:.2f} %, median {:.3f} %; perplexity {:.1f} of "
      "{}\n",
      *summary.members_scored, map.clusters,
      100 * (*summary.members_scored + static_cast<double>(map.clusters)) / static_cast<double>(map.vocab_size),
      map.vocab_size, 100 * mass.front(), 100 * largest, 100 * mass[mass.size() / 2], *summary.cluster_perplexity,
      map.clusters);
}

std::string bands_text(const KnownMap& known, const MapSummary& summary) {
  if (summary.bands.empty()) return "";
  std::string text = fmt::format("variance kept of the vectors ({} dimensions)\n", known.evidence.dims);
  for (const BandDistortion& band : summary.bands) {
    const std::string name =
        &band == summary.bands.data()
            ? "all tokens"
            : fmt::format("{} {} to {}", known.evidence.counts.empty() ? "ids" : "ranks", band.first + 1, band.last);
    text += fmt::format("  {:<24} {:6.2f} % by clusters, {:6.2f} % with codes\n", name, 100 * band.kept_by_clusters,
                        100 * band.kept_by_codes);
  }
  return text;
}

OrderedJson summary_json(const KnownMap& known, const MapSummary& summary) {
  const CodeMap& map = known.map;
  OrderedJson json = {{"file", known.path},
                      {"provenance", map.provenance},
                      {"vocab_size", map.vocab_size},
                      {"clusters", map.clusters},
                      {"codes", map.codes},
                      {"groups", map.groups},
                      {"bytes", summary.bytes},
                      {"one_token_clusters", summary.one_token_clusters},
                      {"size_quartiles", summary.size_quartiles}};
  if (summary.members_scored) {
    json["members_scored"] = *summary.members_scored;
    json["cluster_perplexity"] = *summary.cluster_perplexity;
    json["mass"] = summary.mass;
  }
  for (const BandDistortion& band : summary.bands) {
    json["bands"].push_back({{"first", band.first},
                             {"last", band.last},
                             {"kept_by_clusters", band.kept_by_clusters},
                             {"kept_by_codes", band.kept_by_codes}});
  }
  return json;
}

}  // namespace

std::string map_text(const KnownMap& known, const MapSummary& summary, const ClusterWords& show,
                     const Tokenizer* tokenizer) {
  const CodeMap& map = known.map;
  const auto& q = summary.size_quartiles;
  std::string text = fmt::format(
      "{}\n"
      "made from     {}\n"
      "vocabulary    {} tokens in {} clusters, {} of them of one token\n"
      "codes         {}\n"
      "sizes         {} at least, quartiles {} / {} / {}, {} at most\n"
      "bytes         {} (clusters as int32, codes as bytes)\n",
      known.path, map.provenance, map.vocab_size, map.clusters, summary.one_token_clusters,
      map.groups > 0 ? fmt::format("{} groups of {}", map.groups, map.codes) : "none: members differ by bias alone",
      q[0], q[1], q[2], q[3], q[4], summary.bytes);
  text += mass_text(map, summary) + bands_text(known, summary);
  return text + words_text(known, summary, show, tokenizer);
}

std::string map_json(const KnownMap& known, const MapSummary& summary, const ClusterWords& show,
                     const Tokenizer* tokenizer) {
  OrderedJson json = summary_json(known, summary);
  json["sizes"] = summary.sizes;
  json["words"] = OrderedJson::object();
  for (const std::int64_t k : show.clusters) {
    OrderedJson& words = json["words"][std::to_string(k)] = OrderedJson::array();
    for (const std::int32_t token : first_members(known, k, show.words)) words.push_back(word(token, tokenizer));
  }
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string comparison_text(const std::vector<KnownMap>& maps, const MapComparison& comparison) {
  std::string text =
      fmt::format("{:>4} {:>6} {:>4} {:>4} {:>6} {:>6} {:>6} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8}\n", "map", "K", "Q",
                  "G", "least", "median", "most", "scored", "perplexity", "I nats", "of I(tok)", "NMI", "ARI");
  const auto known = [](const std::optional<double>& x) { return x ? fmt::format("{:.1f}", *x) : std::string("-"); };
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const CodeMap& map = maps[i].map;
    const MapSummary& s = comparison.summaries[i];
    std::string kept = "-", part = "-";
    if (!comparison.information.empty()) {
      kept = fmt::format("{:.4f}", comparison.information[i]);
      part = fmt::format("{:.2f} %", 100 * comparison.information[i] / comparison.token_information);
    }
    text += fmt::format("{:>4} {:>6} {:>4} {:>4} {:>6} {:>6} {:>6} {:>9} {:>10} {:>8} {:>8} {:>8.4f} {:>8.4f}\n", i + 1,
                        map.clusters, map.codes, map.groups, s.size_quartiles[0], s.size_quartiles[2],
                        s.size_quartiles[4], known(s.members_scored), known(s.cluster_perplexity), kept, part,
                        comparison.with_first[i].normalized, comparison.with_first[i].adjusted_rand);
  }
  for (std::size_t i = 0; i < maps.size(); ++i) {
    text += fmt::format("{:>4} {}: {}\n", i + 1, maps[i].path, maps[i].map.provenance);
  }
  text += "scored: members a token expected; perplexity: of the clusters' mass; NMI, ARI: agreement with map 1\n";
  if (!comparison.information.empty()) {
    text += fmt::format(
        "I: what the previous token tells about the next one's cluster; about the token itself {:.4f} nats\n",
        comparison.token_information);
  }
  return text;
}

std::string comparison_json(const std::vector<KnownMap>& maps, const MapComparison& comparison) {
  OrderedJson json;
  if (!comparison.information.empty()) json["token_information"] = comparison.token_information;
  for (std::size_t i = 0; i < maps.size(); ++i) {
    OrderedJson map = summary_json(maps[i], comparison.summaries[i]);
    map.erase("mass");
    if (!comparison.information.empty()) map["information"] = comparison.information[i];
    map["agreement_with_first"] = {{"mutual_information", comparison.with_first[i].mutual_information},
                                   {"normalized", comparison.with_first[i].normalized},
                                   {"adjusted_rand", comparison.with_first[i].adjusted_rand}};
    json["maps"].push_back(std::move(map));
  }
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace vqlm
