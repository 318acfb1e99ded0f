#include "train/codes/code_map_file.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/hdf5/h5.h"
#include "train/codes/map_seen.h"

namespace vqlm {
namespace {

constexpr const char* map_format = "vqlm-code-map";
constexpr std::int64_t map_version = 1;
constexpr const char* way_out = "name another map, or head.map=corpus";

void write_map(const std::string& path, const CodeMap& map, const MapEvidence& evidence) {
  // Deflate beside the checksum: Fletcher-32 of zeros is zero, so a chunk lost as a whole would read as codes of 0.
  h5::File file = h5::File::create(path);
  const auto vocab_size = static_cast<std::uint64_t>(map.vocab_size);
  const auto groups = static_cast<std::uint64_t>(map.groups);
  file.write_dataset<std::int32_t>("cluster_of_token", {vocab_size}, map.cluster_of_token,
                                   {.chunk = {vocab_size}, .deflate = 1, .fletcher32 = true});
  if (groups > 0) {
    file.write_dataset<std::uint8_t>("member_codes", {vocab_size, groups}, map.member_codes,
                                     {.chunk = {vocab_size, groups}, .deflate = 1, .fletcher32 = true});
  }
  if (!evidence.counts.empty()) {
    file.write_dataset<std::int64_t>("counts", {vocab_size}, evidence.counts,
                                     {.chunk = {vocab_size}, .deflate = 1, .fletcher32 = true});
  }
  if (!evidence.vectors.empty()) {
    const auto dims = static_cast<std::uint64_t>(evidence.dims);
    file.write_dataset<float>(
        "vectors", {vocab_size, dims}, evidence.vectors,
        {.chunk = {std::min<std::uint64_t>(vocab_size, 4096), dims}, .deflate = 1, .fletcher32 = true});
  }
  file.set_attribute("format", map_format);
  file.set_attribute("version", map_version);
  file.set_attribute("vocab_size", map.vocab_size);
  file.set_attribute("clusters", map.clusters);
  file.set_attribute("groups", std::int64_t{map.groups});
  file.set_attribute("codes", std::int64_t{map.codes});
  file.set_attribute("provenance", map.provenance);
  file.set_attribute("counted_tokens", map.counted_tokens);
  file.close();
}

int small_attribute(const h5::File& file, const char* name) {
  const std::int64_t value = file.int_attribute(name);
  if (value < 0 || value > 1'000'000) throw Error(fmt::format("{}: attribute {} is {}", file.path(), name, value));
  return static_cast<int>(value);
}

/// The dataset's values, after its shape was checked: a wrong one must not decide how much memory is taken.
template <class T>
std::vector<T> read_table(const h5::File& file, const char* name, const h5::Dims& shape) {
  const h5::Dataset table = file.dataset(name);
  if (table.shape() != shape || table.type() != h5::type_of<T>()) {
    throw Error(fmt::format("{}: shape or type do not agree with the attributes", table.label()));
  }
  table.require_stored();
  return table.read_all<T>();
}

CodeMap read_map(const std::string& path) {
  const h5::File file = h5::File::open(path);
  if (!file.has_attribute("format") || file.string_attribute("format") != map_format) {
    throw Error(fmt::format("{}: is not a code map (attribute format is not \"{}\")", path, map_format));
  }
  if (const auto version = file.int_attribute("version"); version != map_version) {
    throw Error(fmt::format("{}: has code map version {}, this program reads version {}", path, version, map_version));
  }
  CodeMap map;
  map.vocab_size = file.int_attribute("vocab_size");
  map.clusters = file.int_attribute("clusters");
  map.groups = small_attribute(file, "groups");
  map.codes = small_attribute(file, "codes");
  check_code_map_sizes(map.vocab_size, map.clusters, map.groups, map.codes);
  map.provenance = file.string_attribute("provenance");
  map.counted_tokens = file.has_attribute("counted_tokens") ? file.int_attribute("counted_tokens")
                                                            : counted_in_provenance(map.provenance);
  const auto vocab_size = static_cast<std::uint64_t>(map.vocab_size);
  map.cluster_of_token = read_table<std::int32_t>(file, "cluster_of_token", {vocab_size});
  if (map.groups > 0) {
    map.member_codes =
        read_table<std::uint8_t>(file, "member_codes", {vocab_size, static_cast<std::uint64_t>(map.groups)});
  }
  return map;
}

MapEvidence read_evidence(const std::string& path) {
  const h5::File file = h5::File::open(path);
  const auto vocab_size = static_cast<std::uint64_t>(std::max<std::int64_t>(file.int_attribute("vocab_size"), 0));
  MapEvidence evidence;
  if (file.exists("counts")) {
    evidence.counts = read_table<std::int64_t>(file, "counts", {vocab_size});
    const auto wrong = std::find_if(evidence.counts.begin(), evidence.counts.end(), [](auto n) { return n < 0; });
    if (wrong != evidence.counts.end()) {
      throw Error(fmt::format("{}: counts: token {} was seen {} times", path, wrong - evidence.counts.begin(), *wrong));
    }
  }
  if (file.exists("vectors")) {
    const h5::Dims shape = file.dataset("vectors").shape();
    if (shape.size() != 2) throw Error(fmt::format("{}: vectors has {} axes, not 2", path, shape.size()));
    evidence.dims = static_cast<std::int64_t>(shape[1]);
    evidence.vectors = read_table<float>(file, "vectors", {vocab_size, shape[1]});
    const auto wrong =
        std::find_if(evidence.vectors.begin(), evidence.vectors.end(), [](float x) { return !std::isfinite(x); });
    if (wrong != evidence.vectors.end()) {
      throw Error(fmt::format("{}: vectors: {} in the row of token {}", path, *wrong,
                              (wrong - evidence.vectors.begin()) / std::max<std::int64_t>(evidence.dims, 1)));
    }
  }
  return evidence;
}

}  // namespace

void save_code_map(const std::string& path, const CodeMap& map, const MapEvidence& evidence) {
  map.validate(path);
  VQLM_ASSERT(evidence.counts.empty() || evidence.counts.size() == map.cluster_of_token.size());
  VQLM_ASSERT(evidence.vectors.size() == map.cluster_of_token.size() * static_cast<std::size_t>(evidence.dims));
  const std::string partial = path + std::string(partial_suffix);
  try {
    write_map(partial, map, evidence);
    publish_file(partial, path);
  } catch (const Error&) {
    std::error_code ignored;  // the error above is what the user needs
    std::filesystem::remove(partial, ignored);
    throw;
  }
}

CodeMap load_code_map(const std::string& path) {
  try {
    CodeMap map = read_map(path);
    map.validate(path);
    return map;
  } catch (const UsageError& error) {  // sizes: a fault of the file, not of the command line
    throw Error(fmt::format("{}: {}; {}", path, error.what(), way_out));
  } catch (const Error& error) {
    throw Error(fmt::format("{}; {}", error.what(), way_out));
  }
}

MapEvidence load_map_evidence(const std::string& path) {
  try {
    return read_evidence(path);
  } catch (const Error& error) {
    throw Error(fmt::format("{}; make the map again", error.what()));
  }
}

}  // namespace vqlm
