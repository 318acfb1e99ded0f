#include "train/run/training_inputs.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/host_collectives.h"
#include "core/log.h"
#include "core/model/head/band_map.h"
#include "data/tokenizer/tokenizer_files.h"
#include "train/codes/code_map_file.h"
#include "train/codes/corpus_map.h"
#include "train/codes/map_maker.h"
#include "train/codes/map_seen.h"
#include "train/models/carried_model.h"
#include "train/run/mixture.h"
#include "train/run/token_counts.h"

namespace vqlm {
namespace {

/// Read by the root alone; the others' is empty.
CodeMap read_map(const VqHeadConfig& head, bool root) {
  if (head.own_tokens > 0) {
    throw UsageError(
        fmt::format("head.own_tokens = {} with head.map = {}: the clusters of a map file are made already; "
                    "set own_tokens = 0, or head.map = \"corpus\" to make a map",
                    head.own_tokens, head.map));
  }
  if (!root) return {};
  if (!std::filesystem::exists(head.map)) {
    throw UsageError(fmt::format(
        "head.map = {}: no such file, and none of the maps that are made; head.map = \"corpus\" makes one", head.map));
  }
  CodeMap map = load_code_map(head.map);
  if (head.groups() == 0) {  // whatever codes the file has, these members need its clusters alone
    map.groups = map.codes = 0;
    map.member_codes.clear();
  }
  return map;
}

/// The rows that only pad a vocabulary beyond the shards' are dealt out to the clusters of more than one token, since no
/// text asks for them; to all where there are no such clusters.
void pad_map(CodeMap& map, std::int64_t vocab_size) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(map.clusters), 0);
  for (const std::int32_t cluster : map.cluster_of_token) ++sizes[static_cast<std::size_t>(cluster)];
  const bool all_alone = std::ranges::max(sizes) == 1;
  std::vector<std::int32_t> shared;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    if (sizes[k] > 1 || all_alone) shared.push_back(static_cast<std::int32_t>(k));
  }
  for (std::int64_t token = map.vocab_size; token < vocab_size; ++token)
    map.cluster_of_token.push_back(shared[static_cast<std::size_t>(token - map.vocab_size) % shared.size()]);
  map.vocab_size = vocab_size;
  map.member_codes.resize(static_cast<std::size_t>(vocab_size * map.groups), 0);
}

/// Collective; the map is the root's.
CodeMap make_map(Backend& backend, const Config& config, const TextToCount& text,
                 const std::vector<std::int64_t>& counts, const CountingRanks& ranks) {
  if (const auto* const adaptive = adaptive_of(config.head)) return make_band_map(*adaptive, counts);
  const ShardSet& train = text.shards();
  const auto& head = std::get<VqHeadConfig>(config.head);
  if (head.map == learned_map) {
    throw UsageError(
        "head.map = \"learned\": maps are re-fit between trainings now; train with head.map = \"corpus\", make a map "
        "from that run by vqlm codes refit, and go on with train --init and head.map = the map's path");
  }
  const auto padded = [&](CodeMap map) {
    const bool of_shards = ranks.is_root() && map.vocab_size == train.vocab_size();
    if (of_shards && map.vocab_size < config.model.vocab_size) pad_map(map, config.model.vocab_size);
    return map;
  };
  if (!is_made_map(head.map)) return padded(read_map(head, ranks.is_root()));
  CorpusMapOptions options;
  options.clusters = head.clusters;
  options.groups = head.groups();
  options.codes = head.codes();
  options.seed = static_cast<std::uint64_t>(config.train.seed);
  options.own_tokens = head.own_tokens;
  // Where members have vectors of their own, all that a map decides is how well a cluster can be foretold: docs/heads.md.
  if (head.by_embedding()) {
    options.vectors = VectorKind::chi_square;
    options.offsets = {-1, -2};
  }
  const std::vector<std::int64_t> of_text(counts.begin(), counts.begin() + train.vocab_size());
  return padded(make_code_map(head.map, options, text, of_text, backend, ranks).map);
}

void broadcast_map(Backend& backend, Communicator& group, const Config& config, CodeMap& map) {
  const MapSizes sizes = map_sizes(config.head).value();
  map.vocab_size = config.model.vocab_size;
  map.clusters = sizes.clusters;
  map.groups = sizes.groups;
  map.codes = sizes.codes;
  broadcast_from(backend, group, 0, map.cluster_of_token);
  broadcast_from(backend, group, 0, map.member_codes);
  std::vector<std::uint8_t> text(map.provenance.begin(), map.provenance.end());
  broadcast_from(backend, group, 0, text);
  map.provenance.assign(text.begin(), text.end());
  std::vector<std::int64_t> counted{map.counted_tokens};
  broadcast_from(backend, group, 0, counted);
  map.counted_tokens = counted[0];
}

/// How the map was made, and how much text it saw. A model that a run began from was trained on text of its own, so that its
/// map is held against nothing here.
std::string map_line(const CodeMap& map, const Config& config, std::int64_t trained) {
  const bool known = config.run.began_from.empty() || config.run.head_since > 0;
  const std::string times = times_trained_text(map.counted_tokens, known ? static_cast<double>(trained) : 0);
  return map.provenance + (times.empty() ? "" : fmt::format("; the map saw {} tokens{}", map.counted_tokens, times));
}

/// The tokenizer beside the shards, which checkpoints carry on. Training reads ids alone, so that another one, or a damaged
/// one, is no reason to stop, but the text that `vqlm generate` makes of ids would be wrong.
std::vector<std::filesystem::path> tokenizer_of(const ShardSet& train, bool root) {
  const std::filesystem::path folder = std::filesystem::path(train.shards().front().path).parent_path();
  std::vector<std::filesystem::path> files = tokenizer_files(folder);
  if (!root || files.empty()) return files;
  if (const std::string here = tokenizer_identity(folder); here != train.tokenizer_sha256()) {
    log::warn(
        "{}: is another tokenizer than the shards were made with, or damaged (sha256 {:.12}, theirs {:.12}); training "
        "needs none, but checkpoints will carry it",
        files.front().string(), here, train.tokenizer_sha256());
  }
  return files;
}

/// What was trained on says nothing about other text.
void refuse_overlap(const ShardSet& train, const ShardSet& heldout) {
  std::set<std::filesystem::path> trained;
  std::vector<std::string> both;
  for (const ShardSet::Shard& shard : train.shards()) trained.insert(std::filesystem::canonical(shard.path));
  for (const ShardSet::Shard& shard : heldout.shards()) {
    if (trained.contains(std::filesystem::canonical(shard.path))) both.push_back(shard.path);
  }
  if (both.empty()) return;
  constexpr std::size_t most_named = 3;
  throw UsageError(fmt::format("data.train = {} and data.heldout = {} both name {}{}; name other shards in one of them",
                               train.glob(), heldout.glob(),
                               fmt::join(both.begin(), both.begin() + std::min(both.size(), most_named), ", "),
                               both.size() > most_named ? fmt::format(" and {} more", both.size() - most_named) : ""));
}

}  // namespace

void check_map(const CodeMap& map, const Config& config, const std::string& origin) {
  if (const auto* const adaptive = adaptive_of(config.head)) return check_band_map(map, *adaptive, origin);
  const MapSizes sizes = map_sizes(config.head).value();
  const auto check = [&](const char* key, std::int64_t in_map, std::int64_t wanted) {
    if (in_map == wanted) return;
    throw UsageError(fmt::format("head.map = {}: made for {} = {}, but the run has {}; set {} = {} or make another map",
                                 origin, key, in_map, wanted, key, in_map));
  };
  check("model.vocab_size", map.vocab_size, config.model.vocab_size);
  check("head.clusters", map.clusters, sizes.clusters);
  check("head.groups", map.groups, sizes.groups);
  check("head.codes", map.codes, sizes.codes);
}

ShardSet open_training_shards(const Config& config) {
  return ShardSet(training_sources(config.data));
}

std::vector<HeldoutSet> open_heldout_shards(const Config& config, const ShardSet& train) {
  std::vector<HeldoutEntry> entries = config.data.heldout_sets;
  if (!config.data.heldout.empty()) entries = {{.name = "", .shards = config.data.heldout}};
  std::vector<HeldoutSet> sets;
  for (const HeldoutEntry& entry : entries) {
    ShardSet heldout(entry.shards);
    if (heldout.tokenizer_sha256() != train.tokenizer_sha256()) {
      throw Error(
          fmt::format("data.heldout = {}: tokenized with another tokenizer (sha256 {}) than data.train = {} ({}); "
                      "prepare both with the same --tokenizer",
                      entry.shards, heldout.tokenizer_sha256().substr(0, 12), train.glob(),
                      train.tokenizer_sha256().substr(0, 12)));
    }
    refuse_overlap(train, heldout);
    sets.push_back({entry.name, std::move(heldout)});
  }
  return sets;
}

std::unique_ptr<ModelSource> on_named_map(std::unique_ptr<ModelSource> initial, const Config& config,
                                          const ShardSet& train, Backend& backend, Communicator& world) {
  const VqHeadConfig* const head = vq_of(config.head);
  if (head == nullptr || is_made_map(head->map) || head->map == learned_map) return initial;
  const bool root = world.rank() == 0;
  // A run's config.toml may name a file that did not travel with its checkpoints, which hold the map.
  const bool gone =
      root && head->map == std::get<VqHeadConfig>(initial->head()).map && !std::filesystem::exists(head->map);
  if (max_over(backend, world, gone ? 1 : 0) > 0) return initial;
  CodeMap map = read_map(*head, root);
  if (root && map.vocab_size == train.vocab_size() && map.vocab_size < config.model.vocab_size)
    pad_map(map, config.model.vocab_size);
  if (root) check_map(map, config, head->map);
  broadcast_map(backend, world, config, map);
  return carried_over(std::move(initial), map, "head.map = " + head->map, backend, world);
}

TrainingInputs make_training_inputs(Backend& backend, const ProcessGrid& grid, const Config& config, ShardSet train,
                                    std::optional<CodeMap> map, const std::optional<TrainState>& goes_on_from) {
  TrainingInputs inputs{.train = std::move(train), .heldout = {}, .counts = {}, .map = {}, .tokenizer = {}};
  inputs.heldout = open_heldout_shards(config, inputs.train);
  const bool root = grid.world().rank() == 0;
  inputs.tokenizer = tokenizer_of(inputs.train, root);
  const auto wait = grid.world().expect_long_wait("counting tokens or making the code map");
  const bool needs_map = map_sizes(config.head).has_value();
  const std::string named = vq_of(config.head) != nullptr ? vq_of(config.head)->map : "bands by frequency";
  // Whether there is a map in hand is the root's to say: making one is a matter of all ranks.
  const bool makes_map = max_over(backend, grid.world(), !needs_map || map || !root ? 0 : 1) > 0;
  if (needs_map) inputs.map = map ? std::move(map) : std::optional<CodeMap>(std::in_place);

  const TrainState place = goes_on_from.value_or(TrainState{});
  const std::int64_t trained = trained_tokens(config, inputs.train, place);
  if (!goes_on_from || makes_map) {
    const CountingRanks ranks = counting_ranks(backend, grid.world());
    const TextToCount text = text_to_count(config, inputs.train, place);
    if (root) log::info("token counts {}", describe_counted(text, trained));
    inputs.counts = count_text(text, config, ranks);
    inputs.counts.resize(static_cast<std::size_t>(config.model.vocab_size), 0);  // rows that only pad the vocabulary
    if (root && makes_map) log::info("making the code map ({})", named);
    if (makes_map) *inputs.map = make_map(backend, config, text, inputs.counts, ranks);
  }
  if (!needs_map) return inputs;
  if (root) check_map(*inputs.map, config, named);
  broadcast_map(backend, grid.world(), config, *inputs.map);
  if (root) log::info("code map: {}", map_line(*inputs.map, config, trained));
  return inputs;
}

}  // namespace vqlm
