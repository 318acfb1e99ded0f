#include "data/tokenizer/byte_level_bpe.h"

#include <simdjson.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/nfc.h"
#include "data/tokenizer/split_pattern.h"
#include "data/tokenizer/utf8.h"

namespace vqlm {

namespace {

/// Appends ids word by word.
class Encoding : public WordSink {
 public:
  Encoding(const BpeMerges& merges, std::vector<std::uint32_t>& ids) : merges_(merges), ids_(ids) {}
  void word(std::string_view bytes) override { merges_.encode(bytes, ids_); }
  void token(std::uint32_t id) override { ids_.push_back(id); }

 private:
  const BpeMerges& merges_;
  std::vector<std::uint32_t>& ids_;
};

class ByteLevelBpe : public TokenizerModel {
 public:
  ByteLevelBpe(ByteLevelSpec spec, const std::string& name);

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(pieces_.size()); }
  std::optional<std::int32_t> eos_id() const override { return std::nullopt; }
  std::optional<std::int32_t> begin_id() const override { return begin_id_; }

  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    Encoding encoding(merges_, ids);
    cut(text, encoding);
  }
  void encode_word(std::string_view word, std::vector<std::uint32_t>& ids) const override { merges_.encode(word, ids); }
  bool cut(std::string_view text, WordSink& sink) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;

  const std::string& piece(std::int32_t id) const override { return pieces_[static_cast<std::size_t>(id)].token; }
  bool is_text_piece(std::int32_t id) const override {
    return !pieces_[static_cast<std::size_t>(id)].token.empty() && !pieces_[static_cast<std::size_t>(id)].special;
  }
  std::optional<std::int32_t> id_of(std::string_view piece) const override {
    const auto found = ids_.find(std::string(piece));
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  struct Piece {
    std::string token;
    std::string bytes;  // its text
    bool special = false;
  };
  struct Step {
    bool prefix_space = false;
    std::optional<SplitPattern> pattern;
  };

  void put(const std::string& token, std::int32_t id, bool special);
  void cut_step(std::size_t step, std::string_view text, MatchScratch& scratch, WordSink& sink) const;

  std::unordered_map<std::string, std::int32_t> ids_;
  std::vector<Piece> pieces_;
  BpeMerges merges_;
  std::optional<Nfc> nfc_;
  AddedTokenFinder in_text_;     // looked for before normalization
  AddedTokenFinder normalized_;  // and behind it
  std::vector<Step> steps_;
  std::optional<std::int32_t> begin_id_;
};

ByteLevelBpe::ByteLevelBpe(ByteLevelSpec spec, const std::string& name)
    : ids_(std::move(spec.vocabulary)), merges_(ids_, spec.merges, spec.whole), begin_id_(spec.begin_id) {
  if (spec.normalization == Normalization::nfc) nfc_.emplace();
  for (const auto& [token, id] : ids_) put(token, id, false);
  std::vector<AddedToken> in_text;
  std::vector<AddedToken> normalized;
  for (AddedToken& added : spec.added) {
    ids_[added.content] = added.id;
    put(added.content, added.id, added.special);
    std::string storage;
    if (added.normalized && nfc_) added.content = std::string(nfc_->normalized(added.content, storage));
    (added.normalized ? normalized : in_text).push_back(std::move(added));
  }
  if (begin_id_ && *begin_id_ >= vocab_size()) begin_id_.reset();
  in_text_ = AddedTokenFinder(in_text);
  normalized_ = AddedTokenFinder(normalized);
  for (const WordCut& word_cut : spec.cuts) {
    Step& step = steps_.emplace_back();
    step.prefix_space = word_cut.prefix_space;
    if (word_cut.pattern) step.pattern.emplace(*word_cut.pattern, name);
  }
}

void ByteLevelBpe::put(const std::string& token, std::int32_t id, bool special) {
  const auto place = static_cast<std::size_t>(id);
  if (pieces_.size() <= place) pieces_.resize(place + 1);
  Piece& piece = pieces_[place];
  piece = {token, {}, special};
  if (!append_bytes_of(token, piece.bytes)) piece.bytes = token;
}

bool ByteLevelBpe::cut(std::string_view text, WordSink& sink) const {
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    throw Error(fmt::format("a text of {} bytes is not UTF-8; convert it to UTF-8", text.size()));
  }
  MatchScratch scratch;
  std::string storage;
  const auto put_token = [&](std::int32_t id) { sink.token(static_cast<std::uint32_t>(id)); };
  in_text_.cut(
      text,
      [&](std::string_view part) {
        normalized_.cut(
            nfc_ ? nfc_->normalized(part, storage) : part,
            [&](std::string_view words) { cut_step(0, words, scratch, sink); }, put_token);
      },
      put_token);
  return true;
}

void ByteLevelBpe::cut_step(std::size_t number, std::string_view text, MatchScratch& scratch, WordSink& sink) const {
  if (number == steps_.size()) return sink.word(text);
  const Step& step = steps_[number];
  std::string prefixed;
  if (step.prefix_space && !text.starts_with(' ')) {
    prefixed.append(1, ' ').append(text);
    text = prefixed;
  }
  if (!step.pattern) return cut_step(number + 1, text, scratch, sink);
  step.pattern->cut(text, scratch, [&](std::string_view word) { cut_step(number + 1, word, scratch, sink); });
}

std::string ByteLevelBpe::decode(std::span<const std::int32_t> ids) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    const Piece& piece = pieces_[static_cast<std::size_t>(id)];
    if (!piece.special) bytes += piece.bytes;
  }
  return valid_utf8(bytes);
}

}  // namespace

std::unique_ptr<TokenizerModel> make_byte_level_bpe(ByteLevelSpec spec, const std::string& name) {
  return std::make_unique<ByteLevelBpe>(std::move(spec), name);
}

}  // namespace vqlm
