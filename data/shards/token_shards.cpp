#include "data/shards/token_shards.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "data/files/json_number.h"

namespace vqlm {
namespace {

constexpr const char* way_out = "run `vqlm prepare` again: it rebuilds damaged shards";

/// Runs `action`; an Error of its own gets the way out appended.
template <class Action>
auto with_way_out(Action action) {
  try {
    return action();
  } catch (const Error& error) {
    throw Error(fmt::format("{}; {}", error.what(), way_out));
  }
}

std::vector<SourceFile> from_json(const std::string& text, const std::string& path) {
  const auto damaged = [&](const std::exception& why) {
    return Error(fmt::format("{}: attribute sources is not a list of files ({})", path, why.what()));
  };
  std::vector<SourceFile> sources;
  try {
    for (const auto& item : nlohmann::json::parse(text)) {
      sources.push_back({item.at("path"), whole_number<std::uint64_t>(item.at("bytes")), item.at("sha256")});
    }
  } catch (const nlohmann::json::exception& error) {
    throw damaged(error);
  } catch (const NotWholeNumber& error) {
    throw damaged(error);
  }
  return sources;
}

}  // namespace

h5::Type token_storage_type(std::int64_t vocab_size) {
  return vocab_size <= 65536 ? h5::Type::u16 : h5::Type::u32;
}

ShardReader::ShardReader(std::string path) : path_(std::move(path)) {
  with_way_out([&] {
    file_ = h5::File::open(path_);
    read_header();
    check_sizes();
  });
}

void ShardReader::read_header() {
  if (!file_->has_attribute("format") || file_->string_attribute("format") != shard_format) {
    throw Error(fmt::format("{}: is not a token shard (attribute format is not \"{}\")", path_, shard_format));
  }
  if (const auto version = file_->int_attribute("version"); version != shard_version) {
    throw Error(fmt::format("{}: has shard version {}, this program reads version {}", path_, version, shard_version));
  }
  meta_.vocab_size = file_->int_attribute("vocab_size");
  const std::int64_t eos_id = file_->int_attribute("eos_id");
  if (meta_.vocab_size < 1 || meta_.vocab_size > (std::int64_t{1} << 31) || eos_id < no_eos ||
      eos_id >= meta_.vocab_size) {
    throw Error(
        fmt::format("{}: end-of-text id {} does not fit a vocabulary of {} tokens", path_, eos_id, meta_.vocab_size));
  }
  meta_.eos_id = static_cast<std::int32_t>(eos_id);
  meta_.tokenizer_sha256 = file_->string_attribute("tokenizer_sha256");
  meta_.sources = from_json(file_->string_attribute("sources"), path_);
}

void ShardReader::check_sizes() {
  const auto count_attribute = [&](const char* name) {
    const std::int64_t value = file_->int_attribute(name);
    if (value < 0) throw Error(fmt::format("{}: attribute {} is {}", path_, name, value));
    return static_cast<std::uint64_t>(value);
  };
  token_count_ = count_attribute("token_count");
  document_count_ = count_attribute("document_count");
  // Both are there or none is: a lost attribute must not pass for bytes that were never known.
  meta_.text_bytes_known = file_->has_attribute("text_bytes") || file_->exists("bytes");
  if (meta_.text_bytes_known) text_bytes_ = count_attribute("text_bytes");
  const auto check_table = [&](const h5::Dataset& table, std::uint64_t length, h5::Type type) {
    table.require_stored();
    if (table.shape() != h5::Dims{length} || table.type() != type) {
      throw Error(fmt::format("{}: does not hold the {} elements that the attributes tell", table.label(), length));
    }
  };
  if (file_->exists("records")) check_table(file_->dataset("records"), document_count_, h5::Type::u64);
  tokens_ = file_->dataset("tokens");
  check_table(*tokens_, token_count_, token_storage_type(meta_.vocab_size));
  check_table(file_->dataset("documents"), document_count_ + 1, h5::Type::u64);
  if (meta_.text_bytes_known) check_table(file_->dataset("bytes"), document_count_, h5::Type::u64);
  const h5::Dims chunk = tokens_->chunk();
  if (!chunk.empty() && std::endian::native == std::endian::little) decoder_.emplace(tokens_->filters());
  chunk_tokens_ = chunk.empty() ? std::max<std::uint64_t>(token_count_, 1) : chunk[0];
}

void ShardReader::read_tokens(std::uint64_t begin, std::span<std::int32_t> out) {
  VQLM_ASSERT(begin <= token_count_ && out.size() <= token_count_ - begin);
  Chunk chunk;
  while (!out.empty()) {
    read_chunk(begin / chunk_tokens_, chunk);
    const std::size_t n = std::min<std::size_t>(chunk.size() - begin % chunk_tokens_, out.size());
    chunk.copy(begin % chunk_tokens_, out.first(n));
    out = out.subspan(n);
    begin += n;
  }
}

void ShardReader::Chunk::copy(std::size_t begin, std::span<std::int32_t> out) const {
  VQLM_ASSERT(begin + out.size() <= size());
  if (narrow.empty()) {
    std::copy_n(wide.data() + begin, out.size(), out.data());
  } else {
    std::copy_n(narrow.data() + begin, out.size(), out.data());
  }
}

template <class T>
bool ShardReader::decode_chunk(std::uint64_t begin, std::vector<T>& values) {
  if (!decoder_ || !decoder_->supported()) return false;
  if (tokens_->read_raw_chunk(raw_, {begin}) != 0) return false;  // a filter was skipped for this chunk
  const std::size_t wanted = values.size();
  values.resize(chunk_tokens_);  // a chunk is stored whole, also the last
  const std::span out(reinterpret_cast<std::uint8_t*>(values.data()), values.size() * sizeof(T));
  const bool decoded = decoder_->decode(raw_, out, sizeof(T));
  values.resize(wanted);
  return decoded;  // where it is damaged, HDF5 reads it again and says why
}

void ShardReader::read_chunk(std::uint64_t number, Chunk& chunk) {
  VQLM_ASSERT(number * chunk_tokens_ < token_count_);
  const std::uint64_t begin = number * chunk_tokens_;
  const std::uint64_t n = std::min(chunk_tokens_, token_count_ - begin);
  const auto read_as = [&](auto& values) {
    values.resize(n);
    with_way_out([&] {
      if (!decode_chunk(begin, values)) tokens_->read(std::span(values), {begin}, {n});
    });
    const auto largest = std::max_element(values.begin(), values.end());
    if (*largest >= meta_.vocab_size) {
      throw Error(fmt::format("{}: token {} is {}, outside the vocabulary [0, {}); {}", path_,
                              begin + static_cast<std::uint64_t>(largest - values.begin()), *largest, meta_.vocab_size,
                              way_out));
    }
  };
  if (tokens_->type() == h5::Type::u16) {
    chunk.wide.clear();
    read_as(chunk.narrow);
  } else {
    chunk.narrow.clear();
    read_as(chunk.wide);
  }
}

std::vector<std::uint64_t> ShardReader::documents() const {
  return with_way_out([&] {
    auto offsets = file_->dataset("documents").read_all<std::uint64_t>();
    if (offsets.front() != 0 || offsets.back() != token_count_ || !std::is_sorted(offsets.begin(), offsets.end())) {
      throw Error(fmt::format("{}: /documents does not rise from 0 to {}", path_, token_count_));
    }
    return offsets;
  });
}

std::vector<std::uint64_t> ShardReader::bytes() const {
  if (!meta_.text_bytes_known) return std::vector<std::uint64_t>(document_count_, 0);
  return with_way_out([&] {
    auto bytes = file_->dataset("bytes").read_all<std::uint64_t>();
    std::uint64_t sum = 0;
    for (const std::uint64_t n : bytes) sum += n;
    if (sum != text_bytes_) {
      throw Error(fmt::format("{}: /bytes sums to {}, attribute text_bytes is {}", path_, sum, text_bytes_));
    }
    return bytes;
  });
}

std::vector<std::uint64_t> ShardReader::records() const {
  if (!file_->exists("records")) return {};
  return with_way_out([&] {
    auto records = file_->dataset("records").read_all<std::uint64_t>();
    if (std::ranges::adjacent_find(records, std::ranges::greater_equal{}) != records.end())
      throw Error(fmt::format("{}: /records does not rise", path_));
    return records;
  });
}

void ShardReader::verify() {
  documents();
  bytes();
  records();
  Chunk chunk;
  for (std::uint64_t number = 0; number * chunk_tokens_ < token_count_; ++number) read_chunk(number, chunk);
}

}  // namespace vqlm
