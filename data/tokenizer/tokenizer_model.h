// What a kind of tokenizer does: the interface behind `Tokenizer` (tokenizer.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// Takes a text's words and the tokens that are no words, in order.
class WordSink {
 public:
  virtual ~WordSink() = default;
  /// The ids of a word do not depend on its neighbours. The bytes are valid during the call.
  virtual void word(std::string_view bytes) = 0;
  virtual void token(std::uint32_t id) = 0;
};

/// const calls may come from several threads at once. Ids are in [0, vocab_size()) unless a comment says otherwise.
class TokenizerModel {
 public:
  virtual ~TokenizerModel() = default;

  virtual std::int64_t vocab_size() const = 0;
  /// The token that ends a text; nothing where the model's own file does not tell.
  virtual std::optional<std::int32_t> eos_id() const = 0;
  /// The token that the model's post-processor puts in front of a text.
  virtual std::optional<std::int32_t> begin_id() const { return std::nullopt; }

  /// Appends the ids of a text. Throws Error.
  virtual void encode(std::string_view text, std::vector<std::uint32_t>& ids) const = 0;
  /// Appends the ids of one word.
  virtual void encode_word(std::string_view word, std::vector<std::uint32_t>& ids) const = 0;
  /// Cuts a text into words; false (and nothing done) for a kind of model that knows no words. Throws Error.
  virtual bool cut(std::string_view /*text*/, WordSink& /*sink*/) const { return false; }
  /// The text of ids.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  /// The token as the model's file writes it; "" for an id that it leaves out.
  virtual const std::string& piece(std::int32_t id) const = 0;
  /// False for ids that stand for no text.
  virtual bool is_text_piece(std::int32_t id) const = 0;
  /// The id of a token as the model's file writes it.
  virtual std::optional<std::int32_t> id_of(std::string_view piece) const = 0;
};

}  // namespace vqlm
