#include "data/tokenizer/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "data/tokenizer/utf8.h"

namespace vqlm {

namespace {

constexpr std::uint32_t moved_characters = 0x100;  // the first of those that stand for bytes that are not printable

std::array<std::uint32_t, 256> make_byte_characters() {
  std::array<std::uint32_t, 256> characters{};
  std::uint32_t next = moved_characters;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}

/// The byte of each character, -1 where it is none.
std::array<std::int16_t, 0x144> make_bytes_of_characters() {
  std::array<std::int16_t, 0x144> bytes{};
  bytes.fill(-1);
  for (std::size_t byte = 0; byte < 256; ++byte) bytes[byte_characters()[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

/// A part of the word on its way to a token.
struct Symbol {
  std::int32_t id = 0;
  std::int32_t previous = -1;  // places of the neighbours, -1 for none
  std::int32_t next = -1;
};

struct Candidate {
  std::uint32_t rank = 0;
  std::int32_t place = 0;  // of the left part
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t merged = 0;
  bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : place > other.place; }
};

}  // namespace

const std::array<std::uint32_t, 256>& byte_characters() {
  static const std::array<std::uint32_t, 256> characters = make_byte_characters();
  return characters;
}

bool append_bytes_of(std::string_view token, std::string& bytes) {
  static const auto bytes_of = make_bytes_of_characters();
  const std::size_t before = bytes.size();
  for (std::size_t at = 0; at < token.size();) {
    const std::uint32_t character = next_code_point(token, at);
    if (character >= bytes_of.size() || bytes_of[character] < 0) {
      bytes.resize(before);
      return false;
    }
    bytes += static_cast<char>(bytes_of[character]);
  }
  return true;
}

std::string token_of_bytes(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) append_utf8(token, byte_characters()[static_cast<unsigned char>(byte)]);
  return token;
}

BpeMerges::BpeMerges(const std::unordered_map<std::string, std::int32_t>& vocabulary, const std::vector<Merge>& merges,
                     WholeWords whole) {
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto found = vocabulary.find(token_of_bytes(std::string(1, static_cast<char>(byte))));
    id_of_byte_[byte] = found == vocabulary.end() ? no_id : found->second;
  }
  joined_.resize(std::bit_ceil(2 * merges.size() + 1));
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t pair = key_of(merges[rank].left, merges[rank].right);
    joined_[place_of(pair)] = {pair, static_cast<std::uint32_t>(rank), merges[rank].merged};
  }
  if (whole == WholeWords::by_merges) return;
  whole_words_.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary) {
    std::string bytes;
    if (!token.empty() && append_bytes_of(token, bytes)) whole_words_.emplace(std::move(bytes), id);
  }
}

/// Where the pair is, or would be.
std::size_t BpeMerges::place_of(std::uint64_t pair) const {
  const std::uint64_t mixed = pair * 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio: low bits of ids reach all bits
  std::size_t place = static_cast<std::size_t>(mixed ^ mixed >> 32) & (joined_.size() - 1);
  while (joined_[place].pair != pair && joined_[place].pair != no_pair) place = (place + 1) & (joined_.size() - 1);
  return place;
}

const BpeMerges::Joined* BpeMerges::find(std::int32_t left, std::int32_t right) const {
  const Joined& joined = joined_[place_of(key_of(left, right))];
  return joined.pair == no_pair ? nullptr : &joined;
}

void BpeMerges::encode(std::string_view word, std::vector<std::uint32_t>& ids) const {
  if (const auto found = whole_words_.find(word); found != whole_words_.end()) {
    ids.push_back(static_cast<std::uint32_t>(found->second));
    return;
  }
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (const char byte : word) {
    const std::int32_t id = id_of_byte_[static_cast<unsigned char>(byte)];
    if (id == no_id) continue;
    const auto place = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, place - 1, place + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue({}, std::move(storage));
  const auto offer = [&](std::int32_t place) {
    const std::int32_t next = symbols[static_cast<std::size_t>(place)].next;
    if (next < 0) return;
    const std::int32_t left = symbols[static_cast<std::size_t>(place)].id;
    const std::int32_t right = symbols[static_cast<std::size_t>(next)].id;
    if (const Joined* joined = find(left, right)) queue.push({joined->rank, place, left, right, joined->merged});
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) offer(static_cast<std::int32_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<std::size_t>(best.place)];
    if (left.id != best.left || left.next < 0) continue;  // it has become another part since this was offered
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    if (right.id != best.right) continue;
    left.id = best.merged;
    right.id = no_id;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.place;
    if (left.previous >= 0) offer(left.previous);
    offer(best.place);
  }
  for (std::int32_t place = 0; place >= 0; place = symbols[static_cast<std::size_t>(place)].next) {
    ids.push_back(static_cast<std::uint32_t>(symbols[static_cast<std::size_t>(place)].id));
  }
}

int BpeMerges::missing_bytes() const {
  return static_cast<int>(std::count(id_of_byte_.begin(), id_of_byte_.end(), no_id));
}

}  // namespace vqlm
