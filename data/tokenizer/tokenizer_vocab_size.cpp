// tokenizer_files.h: the size of a vocabulary.
#include <simdjson.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_files.h"

namespace vqlm {

namespace {

namespace fs = std::filesystem;
using simdjson::dom::element;

[[noreturn]] void damaged(const fs::path& path, std::string_view what) {
  throw Error(fmt::format("{}: {}; copy it again from its model, or give --vocab-size without --tokenizer-files",
                          path.string(), what));
}

element load(simdjson::dom::parser& parser, const fs::path& path) {
  element root;
  if (const auto code = parser.load(path.string()).get(root); code != simdjson::SUCCESS) {
    damaged(path, simdjson::error_message(code));
  }
  return root;
}

/// Takes an id into account.
void count(std::int64_t& size, const simdjson::simdjson_result<element>& value, const fs::path& path) {
  std::int64_t id = 0;
  if (value.get_int64().get(id) != simdjson::SUCCESS || id < 0 || id >= std::int64_t{1} << 31) {
    damaged(path, "holds an id that is no number from 0 to 2^31 - 1");
  }
  size = std::max(size, id + 1);
}

/// One more than the largest value of an object {token: id}.
std::int64_t size_of_map(const element& map, const fs::path& path) {
  simdjson::dom::object object;
  if (map.get_object().get(object) != simdjson::SUCCESS) damaged(path, "holds no object of tokens and ids");
  std::int64_t size = 0;
  for (const auto member : object) count(size, element(member.value), path);
  return size;
}

/// Returns the size that tokenizer.json tells: BPE and word models map tokens to ids, unigram models list them.
std::int64_t size_of_tokenizer_json(const fs::path& path) {
  simdjson::dom::parser parser;
  const element root = load(parser, path);
  element vocabulary;
  if (root["model"]["vocab"].get(vocabulary) != simdjson::SUCCESS) damaged(path, "has no model.vocab");
  simdjson::dom::array list;
  std::int64_t size = 0;
  if (vocabulary.get_array().get(list) == simdjson::SUCCESS) {
    for ([[maybe_unused]] const element piece : list) ++size;  // its size() stops at 2^24
  } else {
    size = size_of_map(vocabulary, path);
  }
  if (root["added_tokens"].get_array().get(list) == simdjson::SUCCESS) {
    for (const element token : list) count(size, token["id"], path);
  }
  return size;
}

}  // namespace

std::int64_t tokenizer_vocab_size(const fs::path& folder) {
  const auto is_there = [&](const char* name) {
    std::error_code not_there;
    return fs::is_regular_file(folder / name, not_there);
  };
  std::int64_t size = 0;
  if (is_there("tokenizer.json")) {
    size = size_of_tokenizer_json(folder / "tokenizer.json");
  } else if (is_there("tokenizer.model")) {
    size = Tokenizer::open((folder / "tokenizer.model").string()).vocab_size();
  } else {
    simdjson::dom::parser parser;
    size = size_of_map(load(parser, folder / "vocab.json"), folder / "vocab.json");
  }
  if (is_there("added_tokens.json")) {
    simdjson::dom::parser parser;
    size = std::max(size, size_of_map(load(parser, folder / "added_tokens.json"), folder / "added_tokens.json"));
  }
  if (size == 0) damaged(folder, "its tokenizer has no token");
  return size;
}

}  // namespace vqlm
