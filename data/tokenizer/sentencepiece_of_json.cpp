#include <openssl/evp.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "data/tokenizer/sentencepiece_json.h"
#include "data/tokenizer/tokenizer_json_reader.h"

namespace vqlm {

namespace {

using Type = SentencePieceFile::Type;

constexpr std::string_view space_mark = "\xE2\x96\x81";

std::string from_base64(const JsonValue& value) {
  const std::string_view text = value.text();
  std::string bytes(text.size() / 4 * 3 + 1, '\0');
  const int length =
      ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                        reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (length < 0) value.damaged("is no base64");
  bytes.resize(static_cast<std::size_t>(length) - (text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0));
  return bytes;
}

/// The steps of a Sequence, or the one step; none for null.
std::vector<JsonValue> steps_of(const JsonValue& value, std::string_view list) {
  if (value.absent()) return {};
  if (value["type"].text() != "Sequence") return {value};
  std::vector<JsonValue> steps;
  const JsonValue all = value[list];
  for (const auto step : all.array()) steps.push_back(element_of(all, step, steps.size()));
  return steps;
}

/// What a file of SentencePiece's kind has somewhere: spaces written as U+2581.
bool is_sentencepiece(const JsonValue& root) {
  const JsonValue model = root["model"];
  if (model.absent()) return false;
  bool spaces = false;
  for (const JsonValue& step : steps_of(root["pre_tokenizer"], "pretokenizers")) {
    if (step["type"].text() == "ByteLevel") return false;
    spaces = spaces || step["type"].text() == "Metaspace";
  }
  for (const JsonValue& step : steps_of(root["normalizer"], "normalizers"))
    spaces = spaces || (step["type"].text() == "Replace" && step["content"].text() == space_mark);
  if (!spaces) return false;
  if (!model["type"].absent() && model["type"].text() == "Unigram") return true;
  return (model["type"].absent() || model["type"].text() == "BPE") && !model["vocab"][space_mark].absent();
}

class Reader {
 public:
  Reader(const JsonValue& root, std::string name) : root_(root), name_(std::move(name)) {}

  SentencePieceFile read() {
    file_.remove_extra_whitespaces = false;
    file_.dummy_prefix = false;
    const JsonValue model = root_["model"];
    file_.bpe = model["type"].absent() || model["type"].text() == "BPE";
    file_.byte_fallback = model["byte_fallback"].boolean_or(false);
    most_ = count(model["vocab"]) + count(root_["added_tokens"]);
    read_pieces(model);
    read_added_tokens();
    for (std::size_t id = 0; id < file_.pieces.size(); ++id) {
      if (file_.pieces[id].text.empty()) refuse(fmt::format("has no token with the id {}", id));
    }
    read_normalizer();
    read_pre_tokenizer();
    if (file_.bpe) read_merges(model["merges"]);
    find_unknown(model);
    find_end();
    return std::move(file_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(fmt::format(
        "{}: {}, as no SentencePiece model does; copy the tokenizer.model that it was made of beside it", name_, what));
  }

  static std::size_t count(const JsonValue& tokens) {
    if (tokens.absent()) return 0;
    return tokens.element.is_array() ? tokens.array().size() : tokens.object().size();
  }

  void put(std::size_t id, std::string_view text, float score, Type type) {
    if (id >= most_) refuse(fmt::format("has the id {} and {} tokens", id, most_));
    if (file_.pieces.size() <= id) file_.pieces.resize(id + 1);
    file_.pieces[id] = {std::string(text), score, type};
  }

  void read_pieces(const JsonValue& model) {
    const JsonValue vocabulary = model["vocab"];
    if (!file_.bpe) {
      for (const auto element : vocabulary.array()) {
        const JsonValue pair = element_of(vocabulary, element, file_.pieces.size());
        double score = 0;
        if (pair.array().size() != 2 || pair.array().at(1).get_double().get(score) != simdjson::SUCCESS)
          pair.damaged("is no pair of a piece and its score");
        const JsonValue text = element_of(pair, pair.array().at(0), 0);
        put(file_.pieces.size(), text.text(), static_cast<float>(score), type_of(text.text()));
      }
      return;
    }
    for (const auto member : vocabulary.object()) {
      const JsonValue entry{member.value, vocabulary.place + fmt::format("[\"{}\"]", member.key)};
      put(static_cast<std::size_t>(entry.id()), member.key, 0, type_of(member.key));
    }
  }

  Type type_of(std::string_view text) const {
    const bool byte = file_.byte_fallback && text.size() == 6 && text.starts_with("<0x") && text.ends_with('>');
    return byte ? Type::byte : Type::normal;
  }

  void read_added_tokens() {
    const JsonValue tokens = root_["added_tokens"];
    if (tokens.absent()) return;
    std::size_t index = 0;
    for (const auto element : tokens.array()) {
      const JsonValue token = element_of(tokens, element, index++);
      std::string text(token["content"].text());
      const bool special = token["special"].boolean_or(false);
      for (std::size_t at = 0; !special && (at = text.find(' ', at)) != std::string::npos;)
        text.replace(at, 1, space_mark);
      put(static_cast<std::size_t>(token["id"].id()), text, 0, special ? Type::control : Type::user_defined);
      user_defined_ = user_defined_ || !special;
    }
  }

  void read_normalizer() {
    for (const JsonValue& step : steps_of(root_["normalizer"], "normalizers")) {
      const std::string_view type = step["type"].text();
      if (type == "Precompiled") {
        file_.charsmap = from_base64(step["precompiled_charsmap"]);
      } else if (type == "Strip" || (type == "Replace" && !step["pattern"]["Regex"].absent())) {
        file_.remove_extra_whitespaces = true;
      } else if (type == "Prepend" && step["prepend"].text() == space_mark) {
        prefix_everywhere();
      } else if (type != "Replace" || step["content"].text() != space_mark) {
        step["type"].refuse("Precompiled, Strip, Prepend and Replace");
      }
    }
  }

  /// transformers puts the space behind each added token, too.
  void prefix_everywhere() {
    if (user_defined_) refuse("puts a space behind tokens that are not special");
    file_.dummy_prefix = true;
  }

  void read_pre_tokenizer() {
    for (const JsonValue& step : steps_of(root_["pre_tokenizer"], "pretokenizers")) {
      if (step["type"].text() != "Metaspace") step["type"].refuse("Metaspace");
      const JsonValue scheme = step["prepend_scheme"];
      if (scheme.absent() ? step["add_prefix_space"].boolean_or(true) : scheme.text() == "always") prefix_everywhere();
      if (!scheme.absent() && scheme.text() == "first") file_.dummy_prefix = true;
      if (step["split"].boolean_or(true)) check_words();
    }
  }

  /// Words that are cut apart at spaces cannot become a piece that goes over one.
  void check_words() const {
    for (const auto& piece : file_.pieces) {
      if (piece.type == Type::normal && piece.text.find(space_mark, 1) != std::string::npos)
        refuse(fmt::format("cuts texts at spaces (Metaspace, split) and has the piece \"{}\"", piece.text));
    }
  }

  /// The rank of a piece's first merge is its score; the other merges must follow from the pieces.
  void read_merges(const JsonValue& merges) {
    std::unordered_map<std::string_view, std::size_t> ids;
    for (std::size_t id = 0; id < file_.pieces.size(); ++id) {
      file_.pieces[id].score = -static_cast<float>(merges.array().size() + id);
      if (file_.pieces[id].type == Type::normal) ids.emplace(file_.pieces[id].text, id);
    }
    std::size_t listed = 0;
    std::size_t rank = 0;
    std::string last;
    std::vector<bool> seen(file_.pieces.size());
    for (const auto element : merges.array()) {
      const JsonValue merge = element_of(merges, element, rank);
      const std::string made = joined(merge);
      const float score = -static_cast<float>(rank++);
      const auto found = ids.find(made);
      if (found == ids.end()) continue;  // a special token, which SentencePiece never makes
      ++listed;
      if (made == last) continue;
      if (seen[found->second]) refuse(fmt::format("makes \"{}\" by merges of several ranks", made));
      seen[found->second] = true;
      file_.pieces[found->second].score = score;
      last = made;
    }
    std::size_t possible = 0;
    for (const auto& [text, id] : ids) {
      for (std::size_t cut = 1; cut < text.size(); ++cut)
        possible += ids.contains(text.substr(0, cut)) && ids.contains(text.substr(cut)) ? 1 : 0;
    }
    if (possible != listed) refuse(fmt::format("has {} of the {} merges that its pieces allow", listed, possible));
  }

  static std::string joined(const JsonValue& merge) {
    if (!merge.element.is_array()) {
      std::string text(merge.text());
      const std::size_t at = text.find(' ');
      if (at == std::string::npos) merge.damaged("is no pair of pieces with a space between them");
      return text.erase(at, 1);
    }
    if (merge.array().size() != 2) merge.damaged("is no pair of pieces");
    return std::string(element_of(merge, merge.array().at(0), 0).text()) +
           std::string(element_of(merge, merge.array().at(1), 1).text());
  }

  void find_unknown(const JsonValue& model) {
    std::size_t id = file_.pieces.size();
    if (!file_.bpe && !model["unk_id"].absent()) {
      id = static_cast<std::size_t>(model["unk_id"].id());
    } else {
      const std::string text(model["unk_token"].absent() ? "<unk>" : model["unk_token"].text());
      for (id = 0; id < file_.pieces.size() && file_.pieces[id].text != text;) ++id;
    }
    if (id >= file_.pieces.size()) refuse("has no token for what is unknown");
    file_.pieces[id].type = Type::unknown;
  }

  void find_end() {
    for (const char* usual : {"</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"}) {
      for (const auto& piece : file_.pieces) {
        if (piece.type != Type::control || piece.text != usual) continue;
        file_.end_piece = usual;
        return;
      }
    }
    refuse("has no </s> or other usual end of text among its special tokens");
  }

  JsonValue root_;
  std::string name_;
  SentencePieceFile file_;
  std::size_t most_ = 0;  // tokens that the file has, so that one id makes no list of a billion pieces
  bool user_defined_ = false;
};

}  // namespace

std::optional<SentencePieceFile> sentencepiece_of_json(std::string_view json, const std::string& name) {
  simdjson::dom::parser parser;
  JsonValue root{{}, name + ": "};
  if (parser.parse(json.data(), json.size()).get(root.element) != simdjson::SUCCESS) return std::nullopt;
  if (!is_sentencepiece(root)) return std::nullopt;
  return Reader(root, name).read();
}

}  // namespace vqlm
