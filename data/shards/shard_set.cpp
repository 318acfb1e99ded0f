#include "data/shards/shard_set.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <list>
#include <unordered_map>

#include "core/log.h"
#include "data/files/input_paths.h"

namespace vqlm {
namespace {

// Shards of a large split number thousands; the usual limit of open files is 1,024 for the whole process.
constexpr std::size_t max_open_shards = 128;
constexpr std::size_t default_cache_bytes = std::size_t{64} << 20;

}  // namespace

// ---- the cache ------------------------------------------------------------------------------------------------------

/// Open shards and their decoded chunks, both bounded, the least recently used given up first.
class ShardTokenCache {
 public:
  explicit ShardTokenCache(std::size_t bytes) : max_bytes_(bytes) {}

  std::size_t max_bytes() const { return max_bytes_; }
  ShardReader& reader(std::size_t shard, const std::string& path);
  const ShardReader::Chunk& chunk(std::size_t shard, const std::string& path, std::uint64_t number);

 private:
  struct Entry {
    std::uint64_t key = 0;
    ShardReader::Chunk chunk;
  };
  struct OpenShard {
    std::size_t shard = 0;
    ShardReader reader;
  };

  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::list<Entry> chunks_;  // most recently used first
  std::unordered_map<std::uint64_t, std::list<Entry>::iterator> chunk_of_key_;
  std::list<OpenShard> open_;  // most recently used first
  std::unordered_map<std::size_t, std::list<OpenShard>::iterator> open_of_shard_;
};

ShardReader& ShardTokenCache::reader(std::size_t shard, const std::string& path) {
  if (const auto found = open_of_shard_.find(shard); found != open_of_shard_.end()) {
    open_.splice(open_.begin(), open_, found->second);
    return open_.front().reader;
  }
  if (open_.size() >= max_open_shards) {
    open_of_shard_.erase(open_.back().shard);
    open_.pop_back();
  }
  open_.push_front({shard, ShardReader(path)});
  open_of_shard_[shard] = open_.begin();
  return open_.front().reader;
}

const ShardReader::Chunk& ShardTokenCache::chunk(std::size_t shard, const std::string& path, std::uint64_t number) {
  VQLM_ASSERT(number < (std::uint64_t{1} << 40));
  const std::uint64_t key = (static_cast<std::uint64_t>(shard) << 40) | number;
  if (const auto found = chunk_of_key_.find(key); found != chunk_of_key_.end()) {
    chunks_.splice(chunks_.begin(), chunks_, found->second);
    return chunks_.front().chunk;
  }
  Entry entry;
  while (bytes_ > max_bytes_ && !chunks_.empty()) {  // its vectors are used again: no allocation once the cache is full
    entry = std::move(chunks_.back());
    chunk_of_key_.erase(entry.key);
    chunks_.pop_back();
    bytes_ -= entry.chunk.bytes();
  }
  entry.key = key;
  reader(shard, path).read_chunk(number, entry.chunk);
  bytes_ += entry.chunk.bytes();
  chunks_.push_front(std::move(entry));
  chunk_of_key_[key] = chunks_.begin();
  return chunks_.front().chunk;
}

// ---- ShardSet -------------------------------------------------------------------------------------------------------

struct ShardSet::Index {
  std::string glob;
  std::vector<Shard> shards;
  std::vector<Part> parts;
  std::vector<std::uint64_t> chunk_tokens;  // of each shard
  ShardMeta meta;                           // of the first shard, without sources
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  std::uint64_t text_bytes = 0;

  /// The shard that holds token `position` (empty shards hold none).
  std::size_t shard_of(std::uint64_t position) const {
    const auto after = std::upper_bound(shards.begin(), shards.end(), position,
                                        [](std::uint64_t p, const Shard& shard) { return p < shard.first_token; });
    return static_cast<std::size_t>(after - shards.begin()) - 1;
  }

  void add(Shard shard, std::uint64_t chunk) {
    shard.first_token = tokens;
    tokens += shard.tokens;
    documents += shard.documents;
    text_bytes += shard.text_bytes;
    shards.push_back(std::move(shard));
    chunk_tokens.push_back(chunk);
  }
};

namespace {

void require_agreement(const ShardMeta& meta, const std::string& path, const ShardMeta& first,
                       const std::string& first_path, const std::string& glob) {
  const auto agree = [&](const auto& value, const auto& wanted, const char* name) {
    if (value == wanted) return;
    throw Error(
        fmt::format("{}: {} is {}, but {} has {}: shards of one set must come from one tokenizer; prepare "
                    "them again or narrow the pattern {}",
                    path, name, value, first_path, wanted, glob));
  };
  agree(meta.vocab_size, first.vocab_size, "vocab_size");
  agree(meta.eos_id, first.eos_id, "eos_id");
  agree(meta.tokenizer_sha256, first.tokenizer_sha256, "tokenizer_sha256");
}

/// Names each file's source, so that a second one is noticed.
class FilesSeen {
 public:
  void add(const std::string& path, const ShardSet::Source& source) {
    const auto [seen, is_new] = source_of_.try_emplace(std::filesystem::weakly_canonical(path).string(), source.name);
    if (is_new || seen->second == source.name) return;
    throw UsageError(
        fmt::format("{}: is in source {} and in source {}; name it in one of them", path, seen->second, source.name));
  }

 private:
  std::unordered_map<std::string, std::string> source_of_;
};

}  // namespace

ShardSet::ShardSet(const std::string& glob) : ShardSet(std::vector<Source>{{.name = "", .glob = glob}}) {}

ShardSet::ShardSet(const std::vector<Source>& sources)
    : cache_(std::make_unique<ShardTokenCache>(default_cache_bytes)) {
  auto index = std::make_shared<Index>();
  FilesSeen seen;
  for (const Source& source : sources) {
    index->glob += (index->glob.empty() ? "" : ", ") + source.glob;
    Part part{.source = source, .first_shard = index->shards.size(), .shards = 0, .first_token = index->tokens};
    for (const std::string& path : expand_glob(source.glob)) {
      seen.add(path, source);
      const ShardReader& reader = cache_->reader(index->shards.size(), path);
      const ShardMeta& meta = reader.meta();
      if (index->shards.empty()) index->meta = meta;
      require_agreement(meta, path, index->meta, index->shards.empty() ? path : index->shards[0].path, source.glob);
      index->meta.text_bytes_known = index->meta.text_bytes_known && meta.text_bytes_known;
      index->add({.path = path,
                  .tokens = reader.tokens(),
                  .documents = reader.document_count(),
                  .text_bytes = reader.text_bytes()},
                 reader.chunk_tokens());
    }
    part.shards = index->shards.size() - part.first_shard;
    part.tokens = index->tokens - part.first_token;
    index->parts.push_back(part);
  }
  index->meta.sources.clear();
  index_ = std::move(index);
}

ShardSet ShardSet::part(std::size_t number) const {
  const Part& part = index_->parts[number];
  auto index = std::make_shared<Index>();
  index->glob = part.source.glob;
  index->meta = index_->meta;
  for (std::size_t s = part.first_shard; s < part.first_shard + part.shards; ++s)
    index->add(index_->shards[s], index_->chunk_tokens[s]);
  index->parts = {
      {.source = part.source, .first_shard = 0, .shards = part.shards, .first_token = 0, .tokens = index->tokens}};
  ShardSet set(*this);
  set.index_ = std::move(index);
  return set;
}

const std::vector<ShardSet::Part>& ShardSet::parts() const {
  return index_->parts;
}
std::size_t ShardSet::shard_of(std::uint64_t token) const {
  VQLM_ASSERT(token < index_->tokens);
  return index_->shard_of(token);
}

ShardSet::ShardSet(const ShardSet& other)
    : index_(other.index_), cache_(std::make_unique<ShardTokenCache>(other.cache_->max_bytes())) {}

ShardSet& ShardSet::operator=(const ShardSet& other) {
  *this = ShardSet(other);
  return *this;
}

ShardSet::ShardSet(ShardSet&&) noexcept = default;
ShardSet& ShardSet::operator=(ShardSet&&) noexcept = default;
ShardSet::~ShardSet() = default;

const std::vector<ShardSet::Shard>& ShardSet::shards() const {
  return index_->shards;
}
const std::string& ShardSet::glob() const {
  return index_->glob;
}
std::int64_t ShardSet::vocab_size() const {
  return index_->meta.vocab_size;
}
std::int32_t ShardSet::eos_id() const {
  return index_->meta.eos_id;
}
const std::string& ShardSet::tokenizer_sha256() const {
  return index_->meta.tokenizer_sha256;
}
std::uint64_t ShardSet::total_tokens() const {
  return index_->tokens;
}
std::uint64_t ShardSet::total_documents() const {
  return index_->documents;
}
std::uint64_t ShardSet::total_text_bytes() const {
  return index_->text_bytes;
}

bool ShardSet::text_bytes_known() const {
  return index_->meta.text_bytes_known;
}

std::string ShardSet::fingerprint() const {
  constexpr std::uint64_t most_tokens = 1024;  // at either end: a chunk or two of each shard are read
  std::string text;
  ShardSet own(*this);
  for (std::size_t s = 0; s < shards().size(); ++s) {
    const Shard& shard = shards()[s];
    text += fmt::format("{} {} {}", shard.tokens, shard.documents, shard.text_bytes);
    for (const SourceFile& source : own.cache_->reader(s, shard.path).meta().sources) text += " " + source.sha256;
    std::vector<std::int32_t> ids(std::min(shard.tokens, most_tokens));
    for (const std::uint64_t begin : {std::uint64_t{0}, shard.tokens - ids.size()}) {
      own.read(shard.first_token + begin, ids);
      text += fmt::format(" {}", fmt::join(ids, ","));
    }
    text += '\n';
  }
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

void ShardSet::set_cache_bytes(std::size_t bytes) {
  cache_ = std::make_unique<ShardTokenCache>(bytes);
}

void ShardSet::read(std::uint64_t begin, std::span<std::int32_t> out) {
  VQLM_ASSERT(begin <= index_->tokens && out.size() <= index_->tokens - begin);
  if (out.empty()) return;
  for (std::size_t s = index_->shard_of(begin); !out.empty(); ++s) {
    const Shard& shard = index_->shards[s];
    const std::uint64_t chunk_tokens = index_->chunk_tokens[s];
    while (!out.empty() && begin < shard.first_token + shard.tokens) {
      const std::uint64_t position = begin - shard.first_token;
      const ShardReader::Chunk& chunk = cache_->chunk(s, shard.path, position / chunk_tokens);
      const std::size_t n = std::min<std::size_t>(chunk.size() - position % chunk_tokens, out.size());
      chunk.copy(position % chunk_tokens, out.first(n));
      out = out.subspan(n);
      begin += n;
    }
  }
}

std::vector<ShardSet::Document> ShardSet::documents(std::uint64_t begin, std::uint64_t end) {
  VQLM_ASSERT(begin <= end && end <= index_->tokens);
  std::vector<Document> found;
  if (begin == end) return found;
  for (std::size_t s = index_->shard_of(begin); s < index_->shards.size(); ++s) {
    const Shard& shard = index_->shards[s];
    if (shard.first_token >= end) break;
    const ShardReader& reader = cache_->reader(s, shard.path);
    const std::vector<std::uint64_t> offsets = reader.documents();
    const std::vector<std::uint64_t> bytes = reader.bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const Document document{shard.first_token + offsets[i], shard.first_token + offsets[i + 1], bytes[i]};
      if (document.end > begin && document.begin < end && document.end > document.begin) found.push_back(document);
    }
  }
  return found;
}

}  // namespace vqlm
