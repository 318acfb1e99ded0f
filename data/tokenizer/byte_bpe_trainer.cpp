#include "data/tokenizer/byte_bpe_trainer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "data/tokenizer/bpe_merges.h"
#include "data/tokenizer/split_pattern.h"
#include "data/tokenizer/tokenizer_json.h"

namespace vqlm {

namespace {

constexpr const char* end_of_text = "<|endoftext|>";
constexpr std::int64_t first_merge = 257;  // behind <|endoftext|> and the bytes

using Id = std::int32_t;
using Pair = std::pair<Id, Id>;

std::uint64_t key_of(Pair pair) {
  return std::uint64_t{static_cast<std::uint32_t>(pair.first)} << 32 | static_cast<std::uint32_t>(pair.second);
}

struct Word {
  std::vector<Id> ids;
  std::int64_t count = 0;
};

/// Bytes of a word in the order of the characters that stand for them, as tokenizers numbers its alphabet.
std::array<Id, 256> ids_of_bytes() {
  std::array<int, 256> order{};
  for (int byte = 0; byte < 256; ++byte) order[static_cast<std::size_t>(byte)] = byte;
  std::sort(order.begin(), order.end(), [](int a, int b) {
    return byte_characters()[static_cast<std::size_t>(a)] < byte_characters()[static_cast<std::size_t>(b)];
  });
  std::array<Id, 256> ids{};
  for (Id i = 0; i < 256; ++i) ids[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = 1 + i;
  return ids;
}

// Bytes: a run of base64 or DNA would be gone through for every merge, and teaches nothing about words.
constexpr std::size_t longest_counted = 1024;

/// The different words of the documents, in the order of their first appearance.
std::vector<Word> words_of(const std::vector<std::string>& documents) {
  const SplitPattern pattern(rewritten_pattern(gpt2_pattern, "GPT-2"), "GPT-2");
  const std::array<Id, 256> ids = ids_of_bytes();
  std::unordered_map<std::string, std::size_t> places;
  std::vector<Word> words;
  MatchScratch scratch;
  std::string key;
  for (const std::string& document : documents) {
    pattern.cut(document, scratch, [&](std::string_view text) {
      if (text.size() > longest_counted) return;
      key.assign(text);
      const auto [place, is_new] = places.try_emplace(key, words.size());
      if (is_new) {
        Word& word = words.emplace_back();
        for (const char byte : text) word.ids.push_back(ids[static_cast<unsigned char>(byte)]);
      }
      ++words[place->second].count;
    });
  }
  return words;
}

/// Counts of neighbours, kept up to date while pairs are merged.
class Merging {
 public:
  explicit Merging(std::vector<Word> words) : words_(std::move(words)) {
    for (std::size_t place = 0; place < words_.size(); ++place) {
      const Word& word = words_[place];
      for (std::size_t i = 1; i < word.ids.size(); ++i) add_in({word.ids[i - 1], word.ids[i]}, word.count, place);
    }
    for (const auto& [key, pair] : pairs_) queue_.push({pair.count, pair.pair});
  }

  /// Takes the most frequent pair; false where no two tokens are neighbours any more.
  bool next(Pair& best) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(key_of(top.pair));
      const std::int64_t count = found == pairs_.end() ? 0 : found->second.count;
      if (count != top.count) {  // has fallen since
        if (count > 0) queue_.push({count, top.pair});
        continue;
      }
      if (count <= 0) continue;
      best = top.pair;
      return true;
    }
    return false;
  }

  /// Puts `merged` in the place of the pair, in all words.
  void merge(Pair pair, Id merged) {
    std::vector<std::uint32_t> places = std::move(pairs_[key_of(pair)].places);
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    changed_.clear();
    for (const std::size_t place : places) merge_in(place, pair, merged);
    pairs_.erase(key_of(pair));
    for (const Pair& changed : changed_) {
      const auto found = pairs_.find(key_of(changed));
      if (found != pairs_.end() && found->second.count > 0) queue_.push({found->second.count, changed});
    }
  }

 private:
  struct Counted {
    Pair pair;
    std::int64_t count = 0;
    std::vector<std::uint32_t> places;  // words that have held it
  };
  struct Candidate {
    std::int64_t count = 0;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  Counted& add(Pair pair, std::int64_t count) {
    Counted& counted = pairs_[key_of(pair)];
    counted.pair = pair;
    counted.count += count;
    return counted;
  }
  void add_in(Pair pair, std::int64_t count, std::size_t place) {
    auto& places = add(pair, count).places;
    if (places.empty() || places.back() != place) places.push_back(static_cast<std::uint32_t>(place));
  }

  void merge_in(std::size_t place, Pair pair, Id merged) {
    Word& word = words_[place];
    std::vector<Id>& ids = word.ids;
    scratch_.clear();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool here = i + 1 < ids.size() && ids[i] == pair.first && ids[i + 1] == pair.second;
      scratch_.push_back(here ? merged : ids[i]);
      if (here) ++i;
    }
    if (scratch_.size() == ids.size()) return;
    for (std::size_t i = 1; i < ids.size(); ++i) add({ids[i - 1], ids[i]}, -word.count);
    for (std::size_t i = 1; i < scratch_.size(); ++i) {
      const Pair neighbours{scratch_[i - 1], scratch_[i]};
      if (neighbours.first != merged && neighbours.second != merged) {
        add(neighbours, word.count);  // was there before
        continue;
      }
      add_in(neighbours, word.count, place);
      changed_.push_back(neighbours);
    }
    ids.swap(scratch_);
  }

  std::vector<Word> words_;
  std::unordered_map<std::uint64_t, Counted> pairs_;
  std::priority_queue<Candidate> queue_;  // counts may have fallen since; then they are looked up when their turn comes
  std::vector<Pair> changed_;
  std::vector<Id> scratch_;
};

std::string tokenizer_json(const std::vector<std::string>& tokens, const std::vector<Pair>& merges) {
  using Json = nlohmann::ordered_json;
  Json vocabulary = Json::object();
  // Past the object's own insertion, which looks for each key among all before it.
  Json::object_t::Container& members = vocabulary.get_ref<Json::object_t&>();
  for (std::size_t id = 0; id < tokens.size(); ++id) members.emplace_back(tokens[id], id);
  Json lines = Json::array();
  for (const auto& [left, right] : merges) {
    lines.push_back(tokens[static_cast<std::size_t>(left)] + " " + tokens[static_cast<std::size_t>(right)]);
  }
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  Json added = {{"id", 0},         {"content", end_of_text}, {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false},    {"special", true}};
  const Json whole = {{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", Json::array({std::move(added)})},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", bytes},
                      {"post_processor", nullptr},
                      {"decoder", bytes},
                      {"model",
                       {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", false},
                        {"vocab", std::move(vocabulary)},
                        {"merges", std::move(lines)}}}};
  return whole.dump(1) + "\n";
}

}  // namespace

std::string train_byte_level_bpe(const std::vector<std::string>& documents, std::int64_t vocab_size,
                                 const std::function<void(std::int64_t)>& trained) {
  if (vocab_size < first_merge) {
    throw Error(
        fmt::format("a byte-level tokenizer of {} tokens has no room for {} and the 256 bytes; choose a "
                    "--train-tokenizer size from {} on",
                    vocab_size, end_of_text, first_merge));
  }
  std::vector<std::string> tokens(static_cast<std::size_t>(first_merge));
  tokens[0] = end_of_text;
  const std::array<Id, 256> bytes = ids_of_bytes();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    tokens[static_cast<std::size_t>(bytes[byte])] = token_of_bytes(std::string(1, static_cast<char>(byte)));
  }
  std::vector<Word> words = words_of(documents);
  if (words.empty()) throw Error("the inputs hold no text to train a tokenizer on; check --input and --text-field");
  Merging merging(std::move(words));
  std::unordered_map<std::string, Id> known;  // two pairs may make one token
  for (std::size_t id = 0; id < tokens.size(); ++id) known.emplace(tokens[id], static_cast<Id>(id));
  std::vector<Pair> merges;
  for (Pair pair; static_cast<std::int64_t>(tokens.size()) < vocab_size;) {
    if (!merging.next(pair)) {
      throw Error(
          fmt::format("a tokenizer of {} tokens cannot be trained on {} documents: their words give {} at most; "
                      "choose another --train-tokenizer size, give more --input or a --tokenizer",
                      vocab_size, documents.size(), tokens.size()));
    }
    std::string token = tokens[static_cast<std::size_t>(pair.first)] + tokens[static_cast<std::size_t>(pair.second)];
    const auto [place, is_new] = known.try_emplace(token, static_cast<Id>(tokens.size()));
    if (is_new) tokens.push_back(std::move(token));
    merges.push_back(pair);
    merging.merge(pair, place->second);
    if (trained) trained(static_cast<std::int64_t>(tokens.size()));
  }
  return tokenizer_json(tokens, merges);
}

}  // namespace vqlm
