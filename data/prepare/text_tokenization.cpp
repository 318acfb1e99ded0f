// Text to ids by a SentencePiece model (tokenization.h).
#include <spdlog/fmt/fmt.h>

#include <optional>

#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/sha256.h"
#include "data/prepare/prepare_tokenizer.h"
#include "data/prepare/tokenization.h"

namespace vqlm {

namespace {

class TextTokenization : public Tokenization {
 public:
  explicit TextTokenization(const PrepareOptions& options) : options_(options) {
    if (!options.tokenizer.empty()) tokenizer_ = Tokenizer::open(options.tokenizer);
  }

  ShardMeta begin(const std::vector<PrepareInput>& inputs, const PrepareFolder& folder) override {
    if (!tokenizer_) tokenizer_ = trained_tokenizer(options_, inputs, folder);
    encoders_.reserve(static_cast<std::size_t>(options_.jobs));
    for (int i = 0; i < options_.jobs; ++i) encoders_.emplace_back(*tokenizer_, encode_options(options_));
    return {tokenizer_->vocab_size(), tokenizer_->eos_id(), tokenizer_->sha256(), {}};
  }

  std::string write_files(const PrepareFolder& folder) override {
    const std::string path = folder.file(tokenizer_file_name);
    write_file_atomically(path, tokenizer_->bytes());
    if (!encoders_[0].words.active()) {
      log::info("{}: words of this model depend on their neighbours; encoding without the cache of words", path);
    }
    return path;
  }

  std::string sha256_of_input(const std::string& path) const override { return sha256_of_file(path); }

  std::unique_ptr<RecordBatches> open(const std::string& path, std::vector<RecordRange> skip) override {
    return std::make_unique<EncodePipeline>(path, std::move(skip), encoders_);
  }

 private:
  const PrepareOptions& options_;
  std::optional<Tokenizer> tokenizer_;
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
