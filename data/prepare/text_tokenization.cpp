// Text to ids by a tokenizer (tokenization.h).
#include <spdlog/fmt/fmt.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/sha256.h"
#include "data/prepare/prepare_tokenizer.h"
#include "data/prepare/tokenization.h"
#include "data/tokenizer/tokenizer_files.h"

namespace vqlm {

namespace {

class TextTokenization : public Tokenization {
 public:
  explicit TextTokenization(const PrepareOptions& options) : options_(options) {
    if (options.tokenizer.empty()) return;
    tokenizer_ = Tokenizer::open(options.tokenizer);
    if (tokenizer_->kind() == TokenizerKind::byte_level_bpe) {
      files_ = files_beside(options.tokenizer);
      // config.json may have told it, and is a model's, not a tokenizer's: it does not come along.
      if (tokenizer_->eos_id() != Tokenizer::no_eos && !tells_eos(files_)) write_down_eos(tokenizer_->eos_id());
    }
    if (options.eos_id) take_eos(*options.eos_id);
  }

  ShardMeta begin(const std::vector<PrepareInput>& inputs, const PrepareFolder& folder) override {
    if (!tokenizer_) tokenizer_ = trained_tokenizer(options_, inputs, folder);
    if (!eos_id_ && tokenizer_->eos_id() == Tokenizer::no_eos) {
      throw Error(fmt::format(
          "{}: nothing tells which token ends a document: no eos_token in the files beside it, nor just one of "
          "<|endoftext|>, <|end_of_text|> and </s> among its special tokens; give its id with --eos",
          options_.tokenizer));
    }
    encoders_.reserve(static_cast<std::size_t>(options_.jobs));
    for (int i = 0; i < options_.jobs; ++i) {
      encoders_.emplace_back(*tokenizer_, encode_options(options_));
      if (eos_id_) encoders_.back().eos_id = static_cast<std::uint32_t>(*eos_id_);
    }
    return {tokenizer_->vocab_size(), eos_id_.value_or(tokenizer_->eos_id()), tokenizer_->sha256(), {}};
  }

  std::string write_files(const PrepareFolder& folder) override {
    const std::string path = folder.file(tokenizer_->file_name());
    // Of an earlier start with another tokenizer: what finds both would take the wrong one.
    for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
      const std::string other = folder.file(name);
      if (other == path || !std::filesystem::exists(other)) continue;
      throw Error(fmt::format("{}: is another tokenizer than {}; choose another --out, or --force to remove it", other,
                              tokenizer_->file_name()));
    }
    write_file_atomically(path, tokenizer_->bytes());
    for (const auto& [name, bytes] : files_) write_file_atomically(folder.file(name), bytes);
    if (!encoders_[0].texts.words().active()) {
      log::info("{}: words of this model depend on their neighbours; encoding without the cache of words", path);
    }
    return path;
  }

  std::string sha256_of_input(const std::string& path) const override { return sha256_of_file(path); }

  std::unique_ptr<RecordBatches> open(const std::string& path, std::vector<RecordRange> skip) override {
    return std::make_unique<EncodePipeline>(path, std::move(skip), encoders_);
  }

 private:
  using Files = std::map<std::string, std::string>;  // contents by name

  static bool tells_eos(const Files& files) {
    const auto file = files.find("generation_config.json");
    if (file == files.end()) return false;
    const auto config = nlohmann::json::parse(file->second, nullptr, false);
    return config.is_object() && config.contains("eos_token_id") && !config["eos_token_id"].is_null();
  }

  /// What lies beside a tokenizer.json and belongs to it.
  static Files files_beside(const std::string& tokenizer) {
    Files files;
    const std::filesystem::path path = tokenizer;
    for (const auto& file : tokenizer_files(std::filesystem::is_directory(path) ? path : path.parent_path())) {
      const std::string name = file.filename().string();
      if (name != "tokenizer.model" && name != "tokenizer.json") files[name] = read_file(file.string());
    }
    return files;
  }

  /// The user's end of text: also written down where `vqlm generate` and others look for it.
  void take_eos(std::int64_t id) {
    if (tokenizer_->kind() == TokenizerKind::sentencepiece) {
      throw UsageError("--eos: a SentencePiece model has its own end of text; leave the option out");
    }
    if (id < 0 || id >= tokenizer_->vocab_size()) {
      throw UsageError(fmt::format("--eos {}: is outside the vocabulary [0, {}); give the id that ends the documents",
                                   id, tokenizer_->vocab_size()));
    }
    eos_id_ = static_cast<std::int32_t>(id);
    write_down_eos(*eos_id_);
  }

  void write_down_eos(std::int32_t id) {
    std::string& file = files_["generation_config.json"];
    auto config = file.empty() ? nlohmann::ordered_json::object() : nlohmann::ordered_json::parse(file, nullptr, false);
    if (!config.is_object()) {
      throw Error(fmt::format("{}: the generation_config.json beside it is not a JSON object; copy it again",
                              options_.tokenizer));
    }
    config["eos_token_id"] = id;
    file = config.dump(2) + "\n";
  }

  const PrepareOptions& options_;
  std::optional<Tokenizer> tokenizer_;
  Files files_;                         // that go with it
  std::optional<std::int32_t> eos_id_;  // where the user gave it
  std::vector<Encoder> encoders_;
};

}  // namespace

std::unique_ptr<Tokenization> make_text_tokenization(const PrepareOptions& options) {
  return std::make_unique<TextTokenization>(options);
}

std::unique_ptr<Tokenization> make_tokenization(const PrepareOptions& options) {
  return options.ids ? make_id_tokenization(options) : make_text_tokenization(options);
}

}  // namespace vqlm
