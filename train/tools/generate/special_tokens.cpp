#include "train/tools/generate/special_tokens.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/atomic_file.h"

namespace vqlm {
namespace {

using Json = nlohmann::json;

/// The object in the file of this name; none where the model has no such file.
std::optional<Json> file_of(const ModelSource& source, const char* name) {
  for (const std::filesystem::path& path : source.tokenizer_files()) {
    if (path.filename() != name) continue;
    Json json = Json::parse(read_file(path.string()), nullptr, false);
    if (!json.is_object()) throw Error(fmt::format("{}: is not a JSON object; copy it again", path.string()));
    return json;
  }
  return std::nullopt;
}

/// A number, or every number of a list, that is an id of the vocabulary.
void add_ids(const Json& json, std::int64_t vocab_size, std::vector<std::int32_t>& ids) {
  if (json.is_array()) {
    for (const Json& element : json) add_ids(element, vocab_size, ids);
  } else if (json.is_number_integer()) {
    const auto id = json.get<std::int64_t>();
    if (id < 0 || id >= vocab_size) return;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(static_cast<std::int32_t>(id));
  }
}

/// "bos_token": a string, or an object with its "content".
std::string bos_piece(const Json& config) {
  const Json token = config.value("bos_token", Json());
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string()) {
    return token["content"].get<std::string>();
  }
  return {};
}

/// What stands before a text of a model whose tokenizer is a tokenizer.json.
std::optional<std::int32_t> begin_of_byte_level(const ModelSource& source, const Tokenizer& tokenizer,
                                                const std::optional<Json>& config, std::optional<std::int32_t> eos) {
  // A run of ours, whose shards have nothing in front of texts, whatever the tokenizer's files say.
  if (source.trained_here()) return eos;
  if (config) {
    const Json add = config->value("add_bos_token", Json());
    if (add.is_boolean()) return add.get<bool>() ? tokenizer.id_of(bos_piece(*config)) : std::nullopt;
    return tokenizer.begin_id();
  }
  return tokenizer.begin_id() ? tokenizer.begin_id() : eos;
}

}  // namespace

SpecialTokens special_tokens(const ModelSource& source, const Tokenizer* tokenizer) {
  SpecialTokens special;
  const std::int64_t vocab_size = source.model().vocab_size;
  std::optional<std::int32_t> eos;
  if (tokenizer != nullptr && tokenizer->eos_id() != Tokenizer::no_eos && tokenizer->eos_id() < vocab_size) {
    eos = tokenizer->eos_id();
    special.end.push_back(*eos);
  }
  const std::optional<Json> generation = file_of(source, "generation_config.json");
  if (generation) add_ids(generation->value("eos_token_id", Json()), vocab_size, special.end);
  if (tokenizer == nullptr) return special;

  const std::optional<Json> config = file_of(source, "tokenizer_config.json");
  if (tokenizer->kind() == TokenizerKind::byte_level_bpe) {
    special.begin = begin_of_byte_level(source, *tokenizer, config, eos);
    return special;
  }
  if (!config) {
    if (source.trained_here()) special.begin = tokenizer->eos_id();
    return special;
  }
  // transformers' LlamaTokenizer puts the token in front unless told otherwise.
  const Json add = config->value("add_bos_token", Json());
  const Json name = config->value("tokenizer_class", Json());
  const bool of_llama = name.is_string() && name.get<std::string>().starts_with("Llama");
  if (add.is_boolean() ? add.get<bool>() : of_llama) special.begin = tokenizer->id_of(bos_piece(*config));
  return special;
}

}  // namespace vqlm
