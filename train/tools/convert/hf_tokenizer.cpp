#include "train/tools/convert/hf_tokenizer.h"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/sha256.h"
#include "data/tokenizer/sentencepiece_file.h"
#include "data/tokenizer/sentencepiece_json.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_files.h"

namespace vqlm {

namespace {

void write_json(const std::filesystem::path& file, const nlohmann::ordered_json& json) {
  write_file_atomically(file.string(), json.dump(2) + "\n");
}

/// Whether the end of the text before stands in front of a text: of a run of ours. What another's model was trained with, no
/// file beside a lone tokenizer.model tells.
enum class BeginsTexts { no, yes };

/// Texts begin behind the end of the one before, as our samples do, and as vqlm generate's prompts: <s> is in no shard, so
/// that its vector was never trained.
nlohmann::ordered_json special_tokens_of(const Tokenizer& tokenizer) {
  const std::string& eos = tokenizer.piece(tokenizer.eos_id());
  nlohmann::ordered_json tokens = {{"bos_token", eos}, {"eos_token", eos}};
  // Its name is the model's to choose, and need not be "<unk>".
  for (const SentencePieceFile::Piece& piece : read_sentencepiece(tokenizer.bytes(), tokenizer.file_name()).pieces) {
    if (piece.type == SentencePieceFile::Type::unknown) tokens["unk_token"] = piece.text;
  }
  return tokens;
}

/// For transformers' Llama tokenizer. "legacy": false and the prefix as the model has it: the default would encode the text
/// after a special token in another way than SentencePiece does.
void describe_sentencepiece(const Tokenizer& tokenizer, BeginsTexts begins, const std::filesystem::path& out) {
  const nlohmann::ordered_json special = special_tokens_of(tokenizer);
  nlohmann::ordered_json config = {{"tokenizer_class", "LlamaTokenizer"},
                                   {"add_bos_token", begins == BeginsTexts::yes},
                                   {"add_eos_token", false},
                                   {"add_prefix_space", tokenizer.traits().dummy_prefix},
                                   {"legacy", false},
                                   {"clean_up_tokenization_spaces", false},
                                   {"sp_model_kwargs", nlohmann::ordered_json::object()}};
  config.update(special);
  write_json(out / "tokenizer_config.json", config);
  write_json(out / "special_tokens_map.json", special);
}

/// An id of a generation_config.json, the first where it is a list.
template <class Json>
std::optional<std::int32_t> id_of(const Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key)) return std::nullopt;
  const Json& value = json[key].is_array() && !json[key].empty() ? json[key][0] : json[key];
  return value.is_number_integer() ? std::optional(value.template get<std::int32_t>()) : std::nullopt;
}

/// The ids of tokenizer_config.json's special tokens, as transformers writes them since 4.34 (added_tokens_decoder).
HfSpecialTokens described_tokens(const std::filesystem::path& file) {
  HfSpecialTokens tokens;
  const auto json = nlohmann::json::parse(read_file(file.string()), nullptr, false);
  if (!json.is_object() || !json.contains("added_tokens_decoder")) return tokens;
  const auto id_of_token = [&](const char* key) -> std::optional<std::int32_t> {
    if (!json.contains(key)) return std::nullopt;
    const nlohmann::json& token =
        json[key].is_object() && json[key].contains("content") ? json[key]["content"] : json[key];
    for (const auto& [id, added] : json["added_tokens_decoder"].items()) {
      if (added.is_object() && added.contains("content") && added["content"] == token) return std::atoi(id.c_str());
    }
    return std::nullopt;
  };
  return {.bos = id_of_token("bos_token"), .eos = id_of_token("eos_token")};
}

/// False for a kind of tokenizer that is only carried along, which is told.
bool can_be_read(const std::filesystem::path& file) {
  try {
    Tokenizer::open(file.string());
    return true;
  } catch (const Error& error) {
    log::info("the tokenizer is carried along as it is ({})", error.what());
    return false;
  }
}

/// Of a tokenizer.json that was alone: by transformers' class for such files, with the end of text in both places.
HfSpecialTokens byte_level_tokens(const std::filesystem::path& out) {
  const Tokenizer tokenizer = Tokenizer::open((out / "tokenizer.json").string());
  nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                   {"add_bos_token", false},
                                   {"clean_up_tokenization_spaces", false}};
  HfSpecialTokens tokens;
  if (tokenizer.eos_id() != Tokenizer::no_eos) {
    const std::string& eos = tokenizer.piece(tokenizer.eos_id());
    config.update(nlohmann::ordered_json{{"bos_token", eos}, {"eos_token", eos}});
    tokens = {.bos = tokenizer.eos_id(), .eos = tokenizer.eos_id()};
  }
  write_json(out / "tokenizer_config.json", config);
  return tokens;
}

using Json = nlohmann::ordered_json;

Json read_json(const std::filesystem::path& file) {
  Json json = Json::parse(read_file(file.string()), nullptr, false);
  if (!json.is_object()) throw Error(file.string() + ": is not a JSON object; copy it again");
  return json;
}

/// The post-processor that puts a token before every text, behind what the file has of ByteLevel (which only trims offsets).
Json begin_with(const std::string& token, std::int32_t id, const Json& before) {
  Json steps = Json::array();
  const auto keep = [&](const Json& step) {
    if (step.is_object() && step.value("type", "") == "ByteLevel") steps.push_back(step);
  };
  if (before.is_object() && before.contains("processors")) {
    for (const Json& step : before["processors"]) keep(step);
  } else {
    keep(before);
  }
  const auto special = [&](int type) { return Json{{"SpecialToken", {{"id", token}, {"type_id", type}}}}; };
  const auto text = [](const char* name, int type) { return Json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  steps.push_back(
      {{"type", "TemplateProcessing"},
       {"single", Json::array({special(0), text("A", 0)})},
       {"pair", Json::array({special(0), text("A", 0), special(1), text("B", 1)})},
       {"special_tokens", {{token, {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}}}}}});
  return {{"type", "Sequence"}, {"processors", std::move(steps)}};
}

/// For a model that Llama's class would take for another one: unigram, with a normalization, or with a space in front, which
/// that class leaves out before a space.
void write_as_json(const Tokenizer& tokenizer, BeginsTexts begins, const std::filesystem::path& out) {
  const std::string name = (out / "tokenizer.model").string();
  Json json = Json::parse(tokenizer_json_of(read_sentencepiece(tokenizer.bytes(), name), name));
  if (begins == BeginsTexts::yes)
    json["post_processor"] =
        begin_with(tokenizer.piece(tokenizer.eos_id()), tokenizer.eos_id(), json["post_processor"]);
  write_file_atomically((out / "tokenizer.json").string(), json.dump());
  nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                   {"add_bos_token", begins == BeginsTexts::yes},
                                   {"clean_up_tokenization_spaces", false}};
  config.update(special_tokens_of(tokenizer));
  write_json(out / "tokenizer_config.json", config);
}

/// Of a SentencePiece model that was alone; a document of ours follows the end of the one before it.
HfSpecialTokens sentencepiece_tokens(BeginsTexts begins, const std::filesystem::path& out) {
  const Tokenizer tokenizer = Tokenizer::open((out / "tokenizer.model").string());
  const TokenizerTraits& traits = tokenizer.traits();
  if (traits.bpe && traits.plain_normalization && !traits.dummy_prefix) {
    describe_sentencepiece(tokenizer, begins, out);
  } else {
    write_as_json(tokenizer, begins, out);
  }
  return {.bos = tokenizer.eos_id(), .eos = tokenizer.eos_id()};
}

/// Makes the folder's byte-level tokenizer put the end of text before every text, as it stands before the texts of our runs,
/// whatever the tokenizer's own model began with. Its ids are the same, and so, as tokenizer_identity() reads it, is its hash.
void begin_texts_like_ours(const std::filesystem::path& out, HfSpecialTokens& tokens) {
  const std::filesystem::path file = out / "tokenizer.json";
  const Tokenizer tokenizer = Tokenizer::open(file.string());
  if (tokenizer.eos_id() == Tokenizer::no_eos) return;
  const std::string& eos = tokenizer.piece(tokenizer.eos_id());
  Json config = read_json(out / "tokenizer_config.json");
  if (tokenizer.begin_id() != tokenizer.eos_id()) {
    const std::string identity = tokenizer_identity(out);
    Json json = read_json(file);
    json["post_processor"] = begin_with(eos, tokenizer.eos_id(), json.value("post_processor", Json()));
    write_file_atomically(file.string(), json.dump(1) + "\n");
    config[tokenizer_identity_key] = {{"of", sha256_of_file(file.string())}, {"is", identity}};
  }
  config["add_bos_token"] = true;
  config["bos_token"] = eos;
  write_json(out / "tokenizer_config.json", config);
  for (const char* name : {"special_tokens_map.json", "generation_config.json"}) {
    if (!std::filesystem::exists(out / name)) continue;
    Json other = read_json(out / name);
    if (std::string_view(name).starts_with("special")) other["bos_token"] = eos;
    if (std::string_view(name).starts_with("generation")) other["bos_token_id"] = tokenizer.eos_id();
    write_json(out / name, other);
  }
  tokens.bos = tokenizer.eos_id();
}

}  // namespace

HfSpecialTokens write_hf_tokenizer(const ModelSource& source, const std::filesystem::path& out) {
  std::set<std::string> names;
  for (const std::filesystem::path& file : source.tokenizer_files()) {
    write_file_atomically((out / file.filename()).string(), read_file(file.string()));
    names.insert(file.filename().string());
  }
  HfSpecialTokens tokens;
  if (names.contains("tokenizer_config.json")) {
    tokens = described_tokens(out / "tokenizer_config.json");
    if (!tokens.eos && names.contains("tokenizer.json") &&
        can_be_read(out / "tokenizer.json")) {  // an old one, without ids
      const Tokenizer tokenizer = Tokenizer::open((out / "tokenizer.json").string());
      if (tokenizer.eos_id() != Tokenizer::no_eos) tokens.eos = tokenizer.eos_id();
    }
  } else if (names.contains("tokenizer.model") && !names.contains("tokenizer.json") &&
             can_be_read(out / "tokenizer.model")) {
    tokens = sentencepiece_tokens(source.trained_here() ? BeginsTexts::yes : BeginsTexts::no, out);
  } else if (names.contains("tokenizer.json") && can_be_read(out / "tokenizer.json")) {
    tokens = byte_level_tokens(out);
  }
  if (source.trained_here() && names.contains("tokenizer.json") && !names.contains("tokenizer.model") &&
      std::filesystem::exists(out / "tokenizer_config.json") && can_be_read(out / "tokenizer.json"))
    begin_texts_like_ours(out, tokens);
  const std::filesystem::path generation = out / "generation_config.json";
  if (names.contains("generation_config.json")) {
    auto json = nlohmann::ordered_json::parse(read_file(generation.string()), nullptr, false);
    if (const auto bos = id_of(json, "bos_token_id")) tokens.bos = bos;
    if (const auto eos = id_of(json, "eos_token_id")) tokens.eos = eos;
    // What config.json says beside it is lost to whoever reads this file first: this program, and transformers.
    const auto tell = [&](const char* key, std::optional<std::int32_t> id) {
      if (!json.is_object() || !id || (json.contains(key) && !json[key].is_null())) return false;
      json[key] = *id;
      return true;
    };
    const bool more = tell("bos_token_id", tokens.bos);
    if (tell("eos_token_id", tokens.eos) || more) write_json(generation, json);
    return tokens;
  }
  nlohmann::ordered_json json = {{"_from_model_config", true}};
  if (tokens.bos) json["bos_token_id"] = *tokens.bos;
  if (tokens.eos) json["eos_token_id"] = *tokens.eos;
  write_json(generation, json);
  return tokens;
}

}  // namespace vqlm
