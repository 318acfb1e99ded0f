#include "data/tokenizer/end_of_text.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/atomic_file.h"

namespace vqlm {

namespace {

using Json = nlohmann::json;

/// The member of the JSON object in a file; null where either is not there.
Json member_of(const std::filesystem::path& file, const char* key) {
  std::error_code not_there;
  if (!std::filesystem::is_regular_file(file, not_there)) return {};
  const Json json = Json::parse(read_file(file.string()), nullptr, false);
  if (!json.is_object()) throw Error(fmt::format("{}: is not a JSON object; copy it again", file.string()));
  return json.value(key, Json());
}

std::optional<std::int32_t> id_in(const TokenizerModel& model, const std::filesystem::path& file) {
  Json value = member_of(file, "eos_token_id");
  if (value.is_array() && value.size() == 1) value = Json(value[0]);
  if (!value.is_number_integer()) return std::nullopt;
  const auto id = value.get<std::int64_t>();
  if (id < 0 || id >= model.vocab_size()) {
    throw Error(
        fmt::format("{}: eos_token_id is {}, the tokenizer beside it has ids from 0 to {}; mend the file, or take "
                    "it away and give --eos",
                    file.string(), id, model.vocab_size() - 1));
  }
  return static_cast<std::int32_t>(id);
}

std::optional<std::int32_t> token_in(const TokenizerModel& model, const std::filesystem::path& file) {
  Json token = member_of(file, "eos_token");
  if (token.is_object()) token = Json(token.value("content", Json()));
  if (!token.is_string()) return std::nullopt;
  const auto id = model.id_of(token.get<std::string>());
  if (!id) {
    throw Error(
        fmt::format("{}: eos_token is \"{}\", which the tokenizer beside it does not have; mend the file, or take it "
                    "away and give --eos",
                    file.string(), token.get<std::string>()));
  }
  return id;
}

}  // namespace

std::optional<std::int32_t> end_of_text_id(const TokenizerModel& model, const std::filesystem::path& folder) {
  if (const auto id = id_in(model, folder / "generation_config.json")) return id;
  if (const auto id = token_in(model, folder / "tokenizer_config.json")) return id;
  if (const auto id = id_in(model, folder / "config.json")) return id;
  return usual_end_of_text(model);
}

std::optional<std::int32_t> usual_end_of_text(const TokenizerModel& model) {
  std::optional<std::int32_t> found;
  for (const char* token : {"<|endoftext|>", "<|end_of_text|>", "</s>"}) {
    const auto id = model.id_of(token);
    if (!id || model.is_text_piece(*id)) continue;  // text may be merged to "</s>", too
    if (found) return std::nullopt;
    found = id;
  }
  return found;
}

}  // namespace vqlm
