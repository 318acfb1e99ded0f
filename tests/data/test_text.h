// Text for tests of the way from text to shards: made-up prose, odd text, and files of either.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/rng.h"
#include "data/tokenizer/tokenizer_trainer.h"

namespace vqlm {

/// A sentence-like text of made-up words, frequent ones much more often (a power law, as in natural text).
inline std::string made_up_text(std::uint64_t seed, std::size_t words) {
  static constexpr std::array<const char*, 20> syllables{"ta",  "ren", "ko",  "li",  "mar", "est", "in",
                                                         "gol", "su",  "per", "no",  "vel", "a",   "do",
                                                         "chi", "thu", "e",   "lan", "qui", "zo"};
  const Philox random(seed, "text");
  std::string text;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < words; ++i) {
    const auto word = static_cast<std::uint64_t>(std::pow(900.0, random.uniform(at++)));
    const Philox letters(word, "word");
    for (std::uint64_t s = 0; s <= word % 3; ++s) text += syllables[letters.below(s, syllables.size())];
    const std::uint64_t end = random.below(at++, 24);
    text += end == 0 ? ".\n" : end == 1 ? ", " : end == 2 ? " 1984 " : end == 3 ? "'s " : " ";
  }
  return text;
}

/// Documents that together have plenty of text for a small vocabulary.
inline std::vector<std::string> made_up_documents(std::uint64_t seed, std::size_t count) {
  std::vector<std::string> documents;
  for (std::size_t i = 0; i < count; ++i) documents.push_back(made_up_text(seed * 100'000 + i, 20 + i % 200));
  return documents;
}

/// A tokenizer model of `pieces` pieces for the text above.
inline std::string made_up_tokenizer(std::int64_t pieces = 600) {
  return train_tokenizer(made_up_documents(1, 300), {pieces, 1});
}

/// Random joints of what is hard on tokenizers: runs of white space of all kinds, controls, scripts, emoji, pieces' own
/// spellings. Without U+2581, which SentencePiece cannot tell from a space, where `lossless`.
inline std::string odd_text(std::uint64_t seed, std::size_t length, bool lossless) {
  using namespace std::string_literals;
  static const std::vector<std::string> bits{" ",
                                             "  ",
                                             "   ",
                                             "\n",
                                             "\n\n",
                                             "\t",
                                             "\r\n",
                                             "\v",
                                             "\f",
                                             "\0"s,
                                             "\x01",
                                             "\x7f",
                                             "\xC2\xA0",
                                             "\xE3\x80\x80",
                                             "\xE2\x80\x8B",
                                             "\xEF\xBB\xBF",
                                             "\xE2\x80\xA8",
                                             "a",
                                             "taren",
                                             " taren",
                                             "ko.",
                                             "Ko",
                                             "don\xE2\x80\x99t",
                                             "...",
                                             "!?",
                                             "1984",
                                             "3.14",
                                             "x=1;",
                                             "<s>",
                                             "</s>",
                                             "<unk>",
                                             "<0x0A>",
                                             "\xC3\xA9",
                                             "e\xCC\x81",
                                             "\xE6\x97\xA5\xE6\x9C\xAC",
                                             "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x94\xAC",
                                             "\xD7\xA9\xD7\x9C",
                                             "\xEF\xBF\xBD",
                                             "\xE2\x96\x82",
                                             "\xF4\x8F\xBF\xBF",
                                             "supernovelmarestingolcholanquizo",
                                             "\xE2\x96\x81"};
  const Philox random(seed, "odd");
  std::string text;
  for (std::size_t i = 0; i < length; ++i) text += bits[random.below(i, bits.size() - (lossless ? 1 : 0))];
  return text;
}

inline std::string gzip(const std::string& text) {
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) throw std::bad_alloc();
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) throw std::runtime_error("deflate");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const std::size_t n = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3);
  if (ZSTD_isError(n) != 0) throw std::runtime_error("ZSTD_compress");
  out.resize(n);
  return out;
}

/// A line of C4.
inline std::string json_line(const std::string& text) {
  return nlohmann::json{{"text", text}, {"timestamp", "2019-04-25T12:57:54Z"}, {"url", "http://a.b/"}}.dump() + "\n";
}

inline std::string json_lines(const std::vector<std::string>& documents) {
  std::string out;
  for (const std::string& document : documents) out += json_line(document);
  return out;
}

}  // namespace vqlm
