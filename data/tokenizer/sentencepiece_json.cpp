#include "data/tokenizer/sentencepiece_json.h"

#include <openssl/evp.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"

namespace vqlm {

namespace {

using OrderedJson = nlohmann::ordered_json;
using Type = SentencePieceFile::Type;

constexpr const char* space = "\xE2\x96\x81";

std::string base64(const std::string& bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int length =
      ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                        reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

std::string with_spaces(const std::string& text) {
  std::string out;
  std::size_t from = 0;
  for (std::size_t at = text.find(space); at != std::string::npos; at = text.find(space, from)) {
    out.append(text, from, at - from).push_back(' ');
    from = at + 3;
  }
  return out.append(text, from);
}

OrderedJson added_tokens(const SentencePieceFile& file) {
  OrderedJson tokens = OrderedJson::array();
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& [text, score, type] = file.pieces[id];
    if (type != Type::unknown && type != Type::control && type != Type::user_defined) continue;
    tokens.push_back({{"id", id},
                      {"content", with_spaces(text)},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", type != Type::user_defined}});
  }
  return tokens;
}

OrderedJson replacement(OrderedJson pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", std::move(pattern)}, {"content", content}};
}

/// Whether the space in front comes by Prepend. It is put before spaces, too, as SentencePiece does, but again behind each added
/// token; Metaspace does it at the text's beginning alone, and not where a space is there or was taken away.
bool prepends(const SentencePieceFile& file) {
  return file.dummy_prefix && std::none_of(file.pieces.begin(), file.pieces.end(),
                                           [](const auto& piece) { return piece.type == Type::user_defined; });
}

/// In SentencePiece's order: the table, spaces that are too many, the one in front.
OrderedJson normalizer_of(const SentencePieceFile& file) {
  OrderedJson steps = OrderedJson::array();
  if (!file.charsmap.empty())
    steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(file.charsmap)}});
  if (file.remove_extra_whitespaces) {
    steps.push_back(replacement({{"Regex", "\\A +| +\\z"}}, ""));
    steps.push_back(replacement({{"Regex", " {2,}"}}, " "));
  }
  if (prepends(file)) steps.push_back({{"type", "Prepend"}, {"prepend", space}});
  if (steps.empty()) return nullptr;
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

OrderedJson decoder_of(const SentencePieceFile& file) {
  OrderedJson steps =
      OrderedJson::array({replacement({{"String", space}}, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (file.dummy_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

/// Every pair of pieces that makes a piece, the best piece first: what SentencePiece looks for without a list.
OrderedJson merges_of(const SentencePieceFile& file) {
  std::unordered_map<std::string_view, std::size_t> ids;
  std::vector<std::size_t> order;
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    if (file.pieces[id].type != Type::normal) continue;
    ids.emplace(file.pieces[id].text, id);
    order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return file.pieces[a].score > file.pieces[b].score; });
  OrderedJson merges = OrderedJson::array();
  for (const std::size_t id : order) {
    const std::string_view text = file.pieces[id].text;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) continue;  // inside a character
      if (!ids.contains(text.substr(0, cut)) || !ids.contains(text.substr(cut))) continue;
      merges.push_back(fmt::format("{} {}", text.substr(0, cut), text.substr(cut)));
    }
  }
  return merges;
}

OrderedJson model_of(const SentencePieceFile& file) {
  std::size_t unknown = 0;
  while (unknown + 1 < file.pieces.size() && file.pieces[unknown].type != Type::unknown) ++unknown;
  if (!file.bpe) {
    OrderedJson vocabulary = OrderedJson::array();
    for (const auto& piece : file.pieces) vocabulary.push_back({piece.text, static_cast<double>(piece.score)});
    return {{"type", "Unigram"},
            {"unk_id", unknown},
            {"vocab", std::move(vocabulary)},
            {"byte_fallback", file.byte_fallback}};
  }
  OrderedJson vocabulary = OrderedJson::object();
  OrderedJson::object_t::Container& members =
      vocabulary.get_ref<OrderedJson::object_t&>();  // past its search for equal keys
  for (std::size_t id = 0; id < file.pieces.size(); ++id) members.emplace_back(file.pieces[id].text, id);
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", file.pieces[unknown].text},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", true},
          {"byte_fallback", file.byte_fallback},
          {"ignore_merges", false},
          {"vocab", std::move(vocabulary)},
          {"merges", merges_of(file)}};
}

}  // namespace

std::string tokenizer_json_of(const SentencePieceFile& file, const std::string& name) {
  if (file.whitespace_as_suffix)
    throw Error(fmt::format("{}: treat_whitespace_as_suffix has no form in tokenizer.json", name));
  const OrderedJson pre_tokenizer = {{"type", "Metaspace"},
                                     {"replacement", space},
                                     {"prepend_scheme", file.dummy_prefix && !prepends(file) ? "first" : "never"},
                                     {"split", false}};
  const OrderedJson whole = {{"version", "1.0"},
                             {"truncation", nullptr},
                             {"padding", nullptr},
                             {"added_tokens", added_tokens(file)},
                             {"normalizer", normalizer_of(file)},
                             {"pre_tokenizer", pre_tokenizer},
                             {"post_processor", nullptr},
                             {"decoder", decoder_of(file)},
                             {"model", model_of(file)}};
  return whole.dump(1) + "\n";
}

}  // namespace vqlm
