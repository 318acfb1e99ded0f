#include "data/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>
#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "data/tokenizer/sentencepiece_model.h"

namespace vqlm {

namespace {

using sentencepiece::SentencePieceProcessor;

void load_model(SentencePieceProcessor& processor, const std::string& model, const std::string& name) {
  // The library takes an empty file for a valid message.
  if (model.empty()) throw Error(fmt::format("{}: is empty, not a SentencePiece model", name));
  const auto status = processor.LoadFromSerializedProto(model);
  if (!status.ok()) {
    throw Error(fmt::format("{}: is not a SentencePiece model: {}; give the .model file", name, status.message()));
  }
}

void encode_with(const SentencePieceProcessor& processor, std::string_view text, std::vector<std::uint32_t>& ids) {
  std::vector<int> encoded;
  const auto status = processor.Encode(text, &encoded);
  if (!status.ok()) {
    throw Error(fmt::format("the tokenizer failed on a text of {} bytes: {}", text.size(), status.message()));
  }
  ids.insert(ids.end(), encoded.begin(), encoded.end());
}

class SentencePieceTokenizer : public TokenizerModel {
 public:
  SentencePieceTokenizer(const std::string& model, const TokenizerTraits& traits, const std::string& name)
      : dummy_prefix_(traits.dummy_prefix) {
    load_model(model_, model, name);
    if (dummy_prefix_) load_model(without_prefix_, without_dummy_prefix(model), name);
    if (model_.eos_id() < 0) {
      throw Error(
          fmt::format("{}: the model has no end-of-text piece (eos_id is -1), which must close every document; "
                      "train it with eos_id >= 0 or use --train-tokenizer",
                      name));
    }
  }

  std::int64_t vocab_size() const override { return model_.GetPieceSize(); }
  std::optional<std::int32_t> eos_id() const override { return model_.eos_id(); }

  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const override { encode_with(model_, text, ids); }
  void encode_word(std::string_view word, std::vector<std::uint32_t>& ids) const override {
    encode_with(dummy_prefix_ ? without_prefix_ : model_, word, ids);
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    const auto status = model_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) throw Error(fmt::format("the tokenizer cannot decode: {}", status.message()));
    return text;
  }

  const std::string& piece(std::int32_t id) const override { return model_.IdToPiece(id); }
  bool is_text_piece(std::int32_t id) const override {
    return !model_.IsControl(id) && !model_.IsUnknown(id) && !model_.IsByte(id);
  }
  std::optional<std::int32_t> id_of(std::string_view piece) const override {
    // The library gives the unknown piece for what it does not know.
    const int id = model_.PieceToId(piece);
    return id >= 0 && model_.IdToPiece(id) == piece ? std::optional(id) : std::nullopt;
  }

 private:
  bool dummy_prefix_;
  SentencePieceProcessor model_;
  SentencePieceProcessor
      without_prefix_;  // the same without the space that it puts in front; unused where it puts none
};

}  // namespace

std::unique_ptr<TokenizerModel> make_sentencepiece_tokenizer(const std::string& model, const TokenizerTraits& traits,
                                                             const std::string& name) {
  return std::make_unique<SentencePieceTokenizer>(model, traits, name);
}

}  // namespace vqlm
