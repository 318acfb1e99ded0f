#include "data/tokenizer/tokenizer_trainer.h"

#include <sentencepiece_trainer.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "core/error.h"

namespace vqlm {

namespace {

constexpr std::size_t max_sentence_bytes = 8192;

/// Hands the documents to the trainer line by line. The line end is a symbol of its own, so no piece can hold
/// one and nothing is lost by cutting there; longer lines are cut before a space, where no piece goes across
/// either.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& documents) : documents_(documents) { Next(); }

  bool done() const override { return done_; }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    while (rest_.empty()) {
      if (next_document_ == documents_.size()) {
        done_ = true;
        return;
      }
      rest_ = documents_[next_document_++];
      rest_.remove_prefix(std::min(rest_.find_first_not_of('\n'), rest_.size()));
    }
    std::size_t length = std::min(rest_.find('\n'), rest_.size());
    if (length > max_sentence_bytes) length = cut(max_sentence_bytes);
    value_.assign(rest_.substr(0, length));
    rest_.remove_prefix(length);
    rest_.remove_prefix(std::min(rest_.find_first_not_of('\n'), rest_.size()));
  }

 private:
  std::size_t cut(std::size_t limit) const {
    const std::size_t space = rest_.rfind(' ', limit);
    if (space != std::string_view::npos && space > 0) return space;
    while ((static_cast<unsigned char>(rest_[limit]) & 0xC0u) == 0x80u) --limit;  // not inside a character
    return limit;
  }

  const std::vector<std::string>& documents_;
  std::size_t next_document_ = 0;
  std::string_view rest_;
  std::string value_;
  bool done_ = false;
};

/// The words of a message like "./src/trainer_interface.cc(580) [condition] Vocabulary size too high (500). Please set it
/// to a value <= 300." without the place in the library and the names of options that are not ours.
std::string reason_of(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  if (const std::size_t end = message.rfind("] "); end != std::string::npos) message.erase(0, end + 2);
  message.erase(std::min(message.find(" Increase vocab_size"), message.size()));
  while (message.ends_with('.') || message.ends_with(' ')) message.pop_back();
  return message;
}

}  // namespace

std::string train_tokenizer(const std::vector<std::string>& documents, const TokenizerTraining& options) {
  const std::unordered_map<std::string, std::string> arguments{
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", options.vocab_size)},
      {"num_threads", fmt::format("{}", options.threads)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"split_digits", "true"},
      {"split_by_whitespace", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"user_defined_symbols", "\n"},
      {"character_coverage", "0.9995"},
      {"max_sentence_length", fmt::format("{}", 2 * max_sentence_bytes)},
      {"hard_vocab_limit", "true"},
      {"minloglevel", "2"},
  };
  Sentences sentences(documents);
  std::size_t bytes = 0;
  for (const std::string& document : documents) bytes += document.size();
  if (sentences.done()) throw Error("the inputs hold no text to train a tokenizer on; check --input and --text-field");
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &sentences, &model);
  if (!status.ok()) {
    throw Error(
        fmt::format("a tokenizer of {} pieces cannot be trained on {} documents, {} bytes of text: {}; choose another "
                    "--train-tokenizer size, give more --input or a --tokenizer",
                    options.vocab_size, documents.size(), bytes, reason_of(status.message())));
  }
  return model;
}

}  // namespace vqlm
