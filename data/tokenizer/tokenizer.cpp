#include "data/tokenizer/tokenizer.h"

#include <spdlog/fmt/fmt.h>

#include <filesystem>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/foreign_file.h"
#include "data/files/sha256.h"
#include "data/tokenizer/end_of_text.h"
#include "data/tokenizer/sentencepiece_file.h"
#include "data/tokenizer/sentencepiece_json.h"
#include "data/tokenizer/sentencepiece_model.h"
#include "data/tokenizer/sentencepiece_tokenizer.h"
#include "data/tokenizer/tokenizer_json.h"

namespace vqlm {

namespace {

namespace fs = std::filesystem;

constexpr const char* sentencepiece_file = "tokenizer.model";
constexpr const char* json_file = "tokenizer.json";

bool has_file(const fs::path& path) {
  std::error_code not_there;
  return fs::is_regular_file(path, not_there);
}

/// The tokenizer's file in a folder; "" where there is none.
std::string file_in(const fs::path& folder) {
  for (const char* name : {sentencepiece_file, json_file}) {
    if (has_file(folder / name)) return (folder / name).string();
  }
  return {};
}

}  // namespace

bool Tokenizer::is_in(const std::string& folder) {
  return !file_in(folder).empty();
}

Tokenizer Tokenizer::open(const std::string& path) {
  std::error_code not_there;
  if (!fs::is_directory(path, not_there)) {
    refuse_foreign_file(path);
    Tokenizer tokenizer = from_bytes(read_file(path), path);
    if (tokenizer.of_json_) {
      tokenizer.eos_id_ = end_of_text_id(*tokenizer.model_, fs::path(path).parent_path()).value_or(tokenizer.eos_id_);
    }
    return tokenizer;
  }
  const std::string file = file_in(path);
  if (file.empty()) {
    const bool of_old = has_file(fs::path(path) / "vocab.json");
    throw Error(fmt::format("{}: holds neither tokenizer.model nor tokenizer.json; {}", path,
                            of_old ? "transformers make tokenizer.json of its vocab.json "
                                     "(AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OTHER))"
                                   : "give the tokenizer's file or another folder"));
  }
  return open(file);
}

Tokenizer Tokenizer::from_bytes(std::string bytes, const std::string& name) {
  Tokenizer tokenizer;
  const bool json = name.ends_with(".json");
  std::optional<SentencePieceFile> kept;
  if (json) kept = sentencepiece_of_json(bytes, name);
  if (kept) {
    const std::string model = write_sentencepiece(*kept);
    tokenizer.traits_ = tokenizer_traits(model, name);
    tokenizer.model_ = make_sentencepiece_tokenizer(model, tokenizer.traits_, name);
    tokenizer.eos_id_ = tokenizer.model_->eos_id().value_or(no_eos);
  } else if (json) {
    tokenizer.kind_ = TokenizerKind::byte_level_bpe;
    tokenizer.model_ = make_byte_level_bpe(read_tokenizer_json(bytes, name), name);
    tokenizer.eos_id_ = usual_end_of_text(*tokenizer.model_).value_or(no_eos);
  } else {
    // Looked at first: the library logs a parse error of its own where the bytes are no protocol buffer.
    tokenizer.traits_ = tokenizer_traits(bytes, name);
    tokenizer.model_ = make_sentencepiece_tokenizer(bytes, tokenizer.traits_, name);
    tokenizer.eos_id_ = tokenizer.model_->eos_id().value_or(no_eos);
  }
  tokenizer.of_json_ = json;
  tokenizer.sha256_ = sha256_of(bytes);
  tokenizer.bytes_ = std::move(bytes);
  return tokenizer;
}

const char* Tokenizer::file_name() const {
  return of_json_ ? json_file : sentencepiece_file;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      throw Error(fmt::format("token {} is outside the tokenizer's vocabulary of {}", id, vocab_size()));
    }
  }
  return model_->decode(ids);
}

std::string Tokenizer::shown(std::int32_t id) const {
  if (kind_ == TokenizerKind::sentencepiece || !is_text_piece(id)) return piece(id);
  std::string text = decode(std::span(&id, 1));
  for (std::size_t at = text.find(' '); at != std::string::npos; at = text.find(' ', at)) {
    text.replace(at, 1, "\xE2\x96\x81");
  }
  return text;
}

}  // namespace vqlm
