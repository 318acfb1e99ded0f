// Byte-pair encoding by a list of merges (Sennrich et al., arXiv 1508.07909; on bytes: Radford et al., "Language Models are
// Unsupervised Multitask Learners", 2019), as Hugging Face's `tokenizers` does it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace vqlm {

/// The characters by which a byte-level vocabulary writes bytes: printable ones of Latin-1 stand for themselves, the other
/// 68 are U+0100 ... U+0143 (GPT-2's bytes_to_unicode). Returns the code point of each byte.
const std::array<std::uint32_t, 256>& byte_characters();

/// Appends the bytes that the token's characters stand for; false (and nothing appended) where one of them is no byte.
bool append_bytes_of(std::string_view token, std::string& bytes);

/// The token that stands for these bytes.
std::string token_of_bytes(std::string_view bytes);

/// The vocabulary and its merges. const calls may come from several threads at once.
class BpeMerges {
 public:
  static constexpr std::int32_t no_id = -1;

  /// One line of the list of merges.
  struct Merge {
    std::int32_t left = 0;
    std::int32_t right = 0;
    std::int32_t merged = 0;
  };
  enum class WholeWords { by_merges, at_once };

  /// vocabulary: token (in byte_characters) to id. merges: in order of rank; of two with the same pair the later one counts.
  /// whole: whether a word that is a token is taken as it is, merges or not (ignore_merges).
  BpeMerges(const std::unordered_map<std::string, std::int32_t>& vocabulary, const std::vector<Merge>& merges,
            WholeWords whole);

  /// Appends the ids of one word, given as bytes. Bytes that have no token are left out.
  void encode(std::string_view word, std::vector<std::uint32_t>& ids) const;

  /// Counts the bytes that have no token.
  int missing_bytes() const;

 private:
  struct Joined {
    std::uint64_t pair = no_pair;
    std::uint32_t rank = 0;
    std::int32_t merged = 0;
  };
  static constexpr std::uint64_t no_pair = ~std::uint64_t{0};  // ids are not negative
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::size_t place_of(std::uint64_t pair) const;
  const Joined* find(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> id_of_byte_{};
  // By pair, at most half full, with the next free place for a pair whose own is taken: one line of cache a look, where
  // unordered_map takes three.
  std::vector<Joined> joined_;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> whole_words_;  // bytes; empty unless at_once
};

}  // namespace vqlm
