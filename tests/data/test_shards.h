// Shards of random documents for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "data/shards/token_shards.h"

namespace vqlm {

using Documents = std::vector<std::vector<std::uint32_t>>;

/// Documents of 0 to 399 random tokens and a closing 0.
inline Documents random_documents(std::int64_t vocab_size, int count, std::uint64_t seed) {
  const Philox rng(seed, "documents");
  std::uint64_t drawn = 0;
  Documents documents(static_cast<std::size_t>(count));
  for (auto& document : documents) {
    document.resize(rng.below(drawn++, 400) + 1);
    for (auto& token : document) {
      token = static_cast<std::uint32_t>(rng.below(drawn++, static_cast<std::uint64_t>(vocab_size)));
    }
    document.back() = 0;
  }
  return documents;
}

inline std::uint64_t text_bytes_of(const std::vector<std::uint32_t>& document) {
  return 3 * document.size() + 1;
}

inline void write_shard(const std::string& path, const Documents& documents, const ShardMeta& meta) {
  ShardWriter writer(path, meta);
  for (const auto& document : documents) writer.add_document(document, text_bytes_of(document));
  writer.finish();
}

inline std::vector<std::int32_t> concatenated(const Documents& documents) {
  std::vector<std::int32_t> stream;
  for (const auto& document : documents) stream.insert(stream.end(), document.begin(), document.end());
  return stream;
}

/// The message of the Error that `action` throws, or "no error".
template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace vqlm
